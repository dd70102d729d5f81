//! Kafka's four codecs in their stored forms: what a decoder reads back, without an encoder.
//!
//! gzip holds stored blocks, snappy one literal, lz4 blocks that are not compressed, zstd raw blocks. To a broker the bytes are opaque
//! until somebody looks for a time; then they are opened as any others.
//!
//! Invariants: `unpack(codec, &pack(codec, x)) == Some(x)`. Reads only what it wrote itself.

/// As numbered in a batch's attributes; 0 is none.
pub const CODECS: u64 = 5;

const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
const GZIP_BLOCK: usize = 65_535;
/// Version 1, independent blocks of at most 4 MiB, no checksums but the head's own.
const LZ4_HEAD: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73];
/// Of a block's size: its bytes are not compressed.
const LZ4_PLAIN: u32 = 1 << 31;
const LZ4_BLOCK: usize = 1 << 20;
/// Magic, and a descriptor: one segment, a content size of four bytes.
const ZSTD_HEAD: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0xa0];
const ZSTD_BLOCK: usize = 100_000;
/// A literal whose length stands in the four bytes that follow.
const SNAPPY_LITERAL: u8 = 63 << 2;

/// `plain` as codec `codec` would hold it.
pub fn pack(codec: u8, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + 64);
    match codec {
        1 => {
            out.extend(GZIP_HEAD);
            for (at, block) in blocks(plain, GZIP_BLOCK) {
                out.push(u8::from(at + block.len() == plain.len()));
                out.extend((block.len() as u16).to_le_bytes());
                out.extend((!(block.len() as u16)).to_le_bytes());
                out.extend(block);
            }
            out.extend(crc32(plain).to_le_bytes());
            out.extend((plain.len() as u32).to_le_bytes());
        }
        2 => {
            let mut len = plain.len();
            while len >= 0x80 {
                out.push(len as u8 | 0x80);
                len >>= 7;
            }
            out.push(len as u8);
            out.push(SNAPPY_LITERAL);
            out.extend((plain.len() as u32 - 1).to_le_bytes());
            out.extend(plain);
        }
        3 => {
            out.extend(LZ4_HEAD);
            for (_, block) in blocks(plain, LZ4_BLOCK) {
                out.extend((block.len() as u32 | LZ4_PLAIN).to_le_bytes());
                out.extend(block);
            }
            out.extend([0; 4]);
        }
        4 => {
            out.extend(ZSTD_HEAD);
            out.extend((plain.len() as u32).to_le_bytes());
            for (at, block) in blocks(plain, ZSTD_BLOCK) {
                let is_last = u32::from(at + block.len() == plain.len());
                out.extend(&((block.len() as u32) << 3 | is_last).to_le_bytes()[..3]);
                out.extend(block);
            }
        }
        _ => out.extend(plain),
    }
    out
}

/// What [`pack`] held; None: these are not its bytes.
pub fn unpack(codec: u8, packed: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(packed.len());
    match codec {
        0 => out.extend(packed),
        1 => {
            let mut rest = packed.strip_prefix(&GZIP_HEAD)?;
            loop {
                let (head, behind) = rest.split_first_chunk::<5>()?;
                let len = usize::from(u16::from_le_bytes([head[1], head[2]]));
                out.extend(behind.get(..len)?);
                rest = &behind[len..];
                if head[0] == 1 {
                    break;
                }
            }
            let (crc, len) = rest.split_first_chunk::<4>()?;
            (u32::from_le_bytes(*crc) == crc32(&out) && len == (out.len() as u32).to_le_bytes()).then_some(())?;
        }
        2 => {
            let head = packed.iter().position(|byte| byte & 0x80 == 0)? + 1;
            out.extend(packed.get(head + 5..)?);
        }
        3 => {
            let mut rest = packed.strip_prefix(&LZ4_HEAD)?;
            loop {
                let (len, behind) = rest.split_first_chunk::<4>()?;
                let len = (u32::from_le_bytes(*len) & !LZ4_PLAIN) as usize;
                if len == 0 {
                    break;
                }
                out.extend(behind.get(..len)?);
                rest = &behind[len..];
            }
        }
        4 => {
            let mut rest = packed.strip_prefix(&ZSTD_HEAD)?.get(4..)?;
            loop {
                let (head, behind) = rest.split_first_chunk::<3>()?;
                let head = u32::from_le_bytes([head[0], head[1], head[2], 0]);
                let len = (head >> 3) as usize;
                out.extend(behind.get(..len)?);
                rest = &behind[len..];
                if head & 1 == 1 {
                    break;
                }
            }
        }
        _ => return None,
    }
    Some(out)
}

/// Where each block begins, and its bytes.
fn blocks(plain: &[u8], most: usize) -> impl Iterator<Item = (usize, &[u8])> {
    plain.chunks(most).enumerate().map(move |(number, block)| (number * most, block))
}

/// The CRC of gzip.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let (mut value, mut bit) = (at as u32, 0);
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[at] = value;
            at += 1;
        }
        table
    };
    !bytes.iter().fold(u32::MAX, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_log::codec::Codec;

    #[test]
    fn what_is_packed_is_read_back_here_and_by_the_brokers_own_decoders() {
        for codec in 0..CODECS as u8 {
            for len in [1, 59, 300, 70_000, 250_000] {
                let plain: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8).collect();
                let packed = pack(codec, &plain);
                assert_eq!(unpack(codec, &packed).as_ref(), Some(&plain), "codec {codec}, {len} bytes");
                let opened = Codec::from_number(codec).unwrap().decompress(&packed, plain.len());
                assert_eq!(opened.as_ref(), Ok(&plain), "codec {codec}, {len} bytes");
            }
        }
    }

    #[test]
    fn other_bytes_are_not_taken_for_packed_ones() {
        for codec in [1, 3, 4] {
            assert_eq!(unpack(codec, b"something else"), None);
        }
    }
}
