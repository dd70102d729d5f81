//! What a zstd frame asks of who decodes it (RFC 8878, 3.1.1.1). A window is memory before a bound on what is unpacked counts.

/// The window of zstd's last level (22), the largest that Kafka's clients ask for.
pub const CLIENT_WINDOW_MAX: u64 = 128 << 20;

const MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The window that the frame at the front of `frame` asks for, in bytes; None: it is no frame, or cut. A frame without a window descriptor is
/// decoded in one piece of its content's size.
pub fn window(frame: &[u8]) -> Option<u64> {
    let (descriptor, rest) = frame.strip_prefix(MAGIC)?.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = *rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + (base >> 3) * u64::from(window & 7));
    }
    let size = rest.get([0, 1, 2, 4][usize::from(descriptor & 3)]..)?;
    Some(match descriptor >> 6 {
        0 => u64::from(*size.first()?),
        1 => u64::from(u16::from_le_bytes(*size.first_chunk()?)) + 256,
        2 => u64::from(u32::from_le_bytes(*size.first_chunk()?)),
        _ => u64::from_le_bytes(*size.first_chunk()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_its_window_or_its_size() {
        let of = |head: &[u8]| window(&[MAGIC, head].concat());
        assert_eq!(of(&[0x00, 0xa8]), Some(1 << 31));
        assert_eq!(of(&[0x00, 0x88]), Some(CLIENT_WINDOW_MAX));
        assert_eq!(of(&[0x00, 0x59]), Some((2 << 20) + (256 << 10)));
        assert_eq!(of(&[0x20, 7]), Some(7));
        assert_eq!(of(&[0x61, 0, 1, 0]), Some(257));
        assert_eq!(of(&[0xa0, 0xff, 0xff, 0xff, 0xff]), Some(u64::from(u32::MAX)));
        assert_eq!(of(&[0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Some(u64::MAX));
        assert_eq!((of(&[]), of(&[0x00]), of(&[0xa0, 1, 2, 3]), window(b"what else")), (None, None, None, None));
    }
}
