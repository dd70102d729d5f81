//! The records of a compressed batch, opened within a bound.
//!
//! A producer compressed them and nobody has opened them since, so nothing about them is believed: every length is checked before
//! memory is taken, output is counted while it comes, and a zstd window beyond [`ZSTD_WINDOW_MAX`] is refused.
//!
//! - gzip: one or more members.
//! - snappy: one raw block, or the framing of the Java client (xerial): 8 bytes magic, two version numbers, then blocks with lengths.
//! - lz4: the standard frame.
//! - zstd: frames.
//!
//! Invariants: output <= the bound; memory <= output bound + window + input.
//! Knows nothing of batches or records.

use millrace_base::fault::Fault;
use std::fmt;
use std::io::Read;

/// The largest zstd window: what the format asks every decoder to support.
pub const ZSTD_WINDOW_MAX: u64 = 8 << 20;

/// Kafka's names for the codec bits of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Why the records stay closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodecError {
    /// A codec number without a meaning.
    Unknown { number: u8 },
    /// More than the bound.
    TooLarge { max: usize },
    /// Not what the codec writes.
    Malformed { codec: Codec },
}

impl CodecError {
    pub fn fault(&self) -> Fault {
        match self {
            CodecError::Unknown { .. } | CodecError::TooLarge { .. } => Fault::Refuse,
            CodecError::Malformed { .. } => Fault::Corrupt,
        }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::Unknown { number } => write!(f, "codec {number} has no meaning"),
            CodecError::TooLarge { max } => write!(f, "the records are more than {max} bytes when decompressed"),
            CodecError::Malformed { codec } => write!(f, "the records are not {codec:?} data"),
        }
    }
}

impl std::error::Error for CodecError {}

impl Codec {
    /// From the bits in a batch's attributes.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn from_number(number: u8) -> Result<Codec, CodecError> {
        match number {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            number => Err(CodecError::Unknown { number }),
        }
    }

    /// Into the front of `out`, which must hold them all; gives how many bytes they are.
    ///
    /// # Errors
    /// `TooLarge`, `Malformed`.
    pub fn decompress_into(self, bytes: &[u8], out: &mut [u8]) -> Result<usize, CodecError> {
        self.decompress_within(bytes, out, ZSTD_WINDOW_MAX)
    }

    /// Likewise, with a bound of its own on a zstd window, which is taken besides `out`.
    ///
    /// # Errors
    /// `TooLarge`, `Malformed`.
    pub fn decompress_within(self, bytes: &[u8], out: &mut [u8], window_max: u64) -> Result<usize, CodecError> {
        match self {
            Codec::None => {
                let max = out.len();
                out.get_mut(..bytes.len()).ok_or(CodecError::TooLarge { max })?.copy_from_slice(bytes);
                Ok(bytes.len())
            }
            Codec::Gzip => self.read(flate2::read::MultiGzDecoder::new(bytes), out),
            Codec::Snappy => snappy(bytes, out),
            Codec::Lz4 => self.read(lz4_flex::frame::FrameDecoder::new(bytes), out),
            Codec::Zstd => zstd(bytes, out, window_max),
        }
    }

    /// Likewise, of at most `max` bytes, into memory of its own.
    ///
    /// # Errors
    /// `TooLarge`, `Malformed`.
    pub fn decompress(self, bytes: &[u8], max: usize) -> Result<Vec<u8>, CodecError> {
        let mut out = vec![0; max];
        let len = self.decompress_into(bytes, &mut out)?;
        out.truncate(len);
        Ok(out)
    }

    /// All that `from` gives.
    fn read(self, mut from: impl Read, out: &mut [u8]) -> Result<usize, CodecError> {
        let max = out.len();
        let mut len = 0;
        loop {
            let mut beyond = [0];
            let target = if len < max { &mut out[len..] } else { &mut beyond[..] };
            match from.read(target) {
                Ok(0) => return Ok(len),
                Ok(_) if len == max => return Err(CodecError::TooLarge { max }),
                Ok(count) => len += count,
                Err(_) => return Err(CodecError::Malformed { codec: self }),
            }
        }
    }
}

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEAD_BYTES: usize = 16;

fn snappy(bytes: &[u8], out: &mut [u8]) -> Result<usize, CodecError> {
    let max = out.len();
    if !bytes.starts_with(XERIAL_MAGIC) {
        return snappy_block(bytes, out, max);
    }
    let malformed = CodecError::Malformed { codec: Codec::Snappy };
    let mut rest = bytes.get(XERIAL_HEAD_BYTES..).ok_or(malformed)?;
    let mut done = 0;
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        let block = behind.get(..len).ok_or(malformed)?;
        done += snappy_block(block, &mut out[done..], max)?;
        rest = &behind[len..];
    }
    if rest.is_empty() { Ok(done) } else { Err(malformed) }
}

/// Snappy's densest operation makes 64 bytes of three, so a block that claims more than this many times its size lies.
const SNAPPY_RATIO_MAX: usize = 32;

fn snappy_block(block: &[u8], out: &mut [u8], max: usize) -> Result<usize, CodecError> {
    let malformed = CodecError::Malformed { codec: Codec::Snappy };
    let len = snap::raw::decompress_len(block).map_err(|_| malformed)?;
    // First, so that nobody makes room for a lie.
    if len / SNAPPY_RATIO_MAX > block.len() {
        return Err(malformed);
    }
    let target = out.get_mut(..len).ok_or(CodecError::TooLarge { max })?;
    let written = snap::raw::Decoder::new().decompress(block, target).map_err(|_| malformed)?;
    if written == len { Ok(len) } else { Err(malformed) }
}

const ZSTD_SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;

fn zstd(bytes: &[u8], out: &mut [u8], window_max: u64) -> Result<usize, CodecError> {
    let max = out.len();
    let malformed = CodecError::Malformed { codec: Codec::Zstd };
    let (mut done, mut rest) = (0, bytes);
    while !rest.is_empty() {
        let magic = u32::from_le_bytes(*rest.first_chunk::<4>().ok_or(malformed)?);
        if ZSTD_SKIPPABLE.contains(&magic) {
            let len = u32::from_le_bytes(*rest[4..].first_chunk::<4>().ok_or(malformed)?) as usize;
            rest = rest[8..].get(len..).ok_or(malformed)?;
            continue;
        }
        if millrace_base::zstd::window(rest).ok_or(malformed)? > window_max {
            return Err(malformed);
        }
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(&mut rest).map_err(|_| malformed)?;
        let read = Codec::Zstd.read(&mut decoder, &mut out[done..]);
        done += read.map_err(|error| if let CodecError::TooLarge { .. } = error { CodecError::TooLarge { max } } else { error })?;
    }
    Ok(done)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use millrace_base::prng::Prng;
    use millrace_base::zstd::CLIENT_WINDOW_MAX;
    use std::io::Write;

    pub(crate) const ALL: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    pub(crate) fn compress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
        match codec {
            Codec::None => bytes.to_vec(),
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Snappy => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
            Codec::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Zstd => ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest),
        }
    }

    fn xerial(blocks: &[&[u8]]) -> Vec<u8> {
        let mut out = [&XERIAL_MAGIC[..], &1i32.to_be_bytes(), &1i32.to_be_bytes()].concat();
        for block in blocks {
            let block = compress(Codec::Snappy, block);
            out.extend((block.len() as u32).to_be_bytes());
            out.extend(block);
        }
        out
    }

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|i| b"the quick brown fox "[(i + i / 97) % 20]).collect()
    }

    #[test]
    fn every_codec_reads_back_within_its_bound_and_not_beyond() {
        for codec in ALL {
            for len in [1, 100, 300_000] {
                let plain = text(len);
                let packed = compress(codec, &plain);
                assert_eq!(codec.decompress(&packed, len).as_deref(), Ok(&plain[..]), "{codec:?}");
                assert_eq!(codec.decompress(&packed, len - 1), Err(CodecError::TooLarge { max: len - 1 }), "{codec:?}");
            }
        }
        assert_eq!(Codec::from_number(5), Err(CodecError::Unknown { number: 5 }));
    }

    #[test]
    fn snappy_is_read_raw_and_in_the_java_clients_framing() {
        let framed = xerial(&[b"one", b"", b"two"]);
        assert_eq!(Codec::Snappy.decompress(&framed, 100).unwrap(), b"onetwo");
        assert_eq!(Codec::Snappy.decompress(&framed, 5), Err(CodecError::TooLarge { max: 5 }));
        for cut in [1, 2, framed.len() - 17] {
            assert!(Codec::Snappy.decompress(&framed[..framed.len() - cut], 100).is_err(), "cut by {cut}");
        }
        for len in [u32::MAX, i32::MAX as u32] {
            let mut lying = xerial(&[b"one"]);
            lying[16..20].copy_from_slice(&len.to_be_bytes());
            assert!(Codec::Snappy.decompress(&lying, 100).is_err());
        }
        for max in [100, 16 << 20] {
            let claims = Codec::Snappy.decompress(&[0x80, 0x80, 0x80, 0x04, 0], max);
            assert_eq!(claims, Err(CodecError::Malformed { codec: Codec::Snappy }), "a block that claims 8 MiB in five bytes");
        }
    }

    #[test]
    fn bombs_stop_at_the_bound() {
        let zeros = vec![0; 4 << 20];
        for codec in ALL {
            let packed = compress(codec, &zeros);
            assert!(packed.len() < zeros.len() / 15, "{codec:?}");
            assert_eq!(codec.decompress(&packed, 1 << 16), Err(CodecError::TooLarge { max: 1 << 16 }), "{codec:?}");
        }
    }

    #[test]
    fn a_zstd_window_that_is_too_large_is_refused() {
        // Magic, no single segment, a window of 2 GiB; then one empty last block.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        assert_eq!(Codec::Zstd.decompress(&frame, 100), Err(CodecError::Malformed { codec: Codec::Zstd }));
        let last_level = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 0x01, 0x00, 0x00];
        assert!(Codec::Zstd.decompress(&last_level, 100).is_err());
        assert_eq!(Codec::Zstd.decompress_within(&last_level, &mut [0; 100], CLIENT_WINDOW_MAX), Ok(0));
        let small = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x01, 0x00, 0x00];
        assert_eq!(Codec::Zstd.decompress(&small, 100).as_deref(), Ok(&[][..]));
        let skippable = [&0x184d_2a50u32.to_le_bytes()[..], &u32::MAX.to_le_bytes()].concat();
        assert!(Codec::Zstd.decompress(&skippable, 100).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_pass_the_bound() {
        let mut prng = Prng::new(21);
        for codec in ALL {
            for packed in [compress(codec, &text(3000)), xerial(&[&text(500), &text(20)])] {
                for _ in 0..1500 {
                    let mut bad = packed.clone();
                    for _ in 0..=prng.below(4) {
                        let at = prng.below(bad.len() as u64) as usize;
                        bad[at] = prng.next_u64() as u8;
                    }
                    bad.truncate(prng.below(2 * bad.len() as u64) as usize);
                    assert!(codec.decompress(&bad, 4000).is_ok_and(|out| out.len() <= 4000) || codec.decompress(&bad, 4000).is_err());
                }
            }
        }
    }
}
