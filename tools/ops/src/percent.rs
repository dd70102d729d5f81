//! The percent format: how records are read from and written as text.
//!
//! 1. `%k` is the key, `%v` (or `%s`) the value, `%h` the headers as `a=1,b=2`, `%t` the topic, `%p` the partition, `%o` the offset, `%d` (or
//!    `%T`) the time in milliseconds, `%K` and `%V` the lengths of key and value, `%%` a percent sign. `{hex}` or `{base64}` behind `%k` or
//!    `%v` says how bytes are written.
//! 2. `\n`, `\t`, `\r`, `\0`, `\\` and `\xNN` stand for bytes; all else for itself.
//! 3. To be read, a field ends where the text behind it begins, and a record with the text behind its last field.
//!
//! Invariant: what is read with a format is written again by it, where no field holds the text that ends it.

use crate::failure::{Failure, Kind, Outcome};
use crate::records::Record;

/// For help texts.
pub const HELP: &str = "%k key, %v value, %h headers, %t topic, %p partition, %o offset, %d time (ms), %K and %V lengths; {hex} or {base64} \
                        behind %k or %v; \\n, \\t, \\xNN";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Coding {
    Bytes,
    Hex,
    Base64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(Vec<u8>),
    Key(Coding),
    Value(Coding),
    Headers,
    Topic,
    Partition,
    Offset,
    Time,
    KeyLength,
    ValueLength,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Percent {
    pieces: Vec<Piece>,
}

impl Percent {
    /// # Errors
    /// `text` is no percent format.
    pub fn parse(text: &str) -> Outcome<Percent> {
        let wrong = |what: String| Failure::usage(format!("the format {text:?} {what}")).with_hint(HELP);
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            let mut own = [0; 4];
            let bytes: Vec<u8> = match c {
                '\\' => vec![escape(&mut rest).ok_or_else(|| wrong("has an unknown escape".to_owned()))?],
                '%' if rest.starts_with('%') => {
                    rest = &rest[1..];
                    vec![b'%']
                }
                '%' => {
                    pieces.push(field(&mut rest).map_err(wrong)?);
                    continue;
                }
                c => c.encode_utf8(&mut own).as_bytes().to_vec(),
            };
            match pieces.last_mut() {
                Some(Piece::Text(text)) => text.extend(bytes),
                _ => pieces.push(Piece::Text(bytes)),
            }
        }
        Ok(Percent { pieces })
    }

    /// For reading: the last field ends with a line if nothing else is said.
    ///
    /// # Errors
    /// Records cannot be read with it.
    pub fn reading(text: &str) -> Outcome<Percent> {
        let mut format = Percent::parse(text)?;
        let wrong = |what: &str| Err(Failure::usage(format!("records cannot be read with {text:?}: {what}")));
        if !matches!(format.pieces.last(), Some(Piece::Text(_))) {
            format.pieces.push(Piece::Text(b"\n".to_vec()));
        }
        let is_text = |piece: &Piece| matches!(piece, Piece::Text(_));
        if format.pieces.iter().all(is_text) {
            return wrong("it has no field");
        }
        if format.pieces.windows(2).any(|pair| !is_text(&pair[0]) && !is_text(&pair[1])) {
            return wrong("between two fields there is nothing that ends the first");
        }
        if format.pieces.iter().any(|piece| matches!(piece, Piece::Topic | Piece::Offset | Piece::KeyLength | Piece::ValueLength)) {
            return wrong("only %k, %v, %h, %p and %d can be given");
        }
        Ok(format)
    }

    /// What ends a record, when reading.
    pub fn end(&self) -> &[u8] {
        match self.pieces.last() {
            Some(Piece::Text(text)) => text,
            _ => b"\n",
        }
    }

    /// The record, and its partition if it is given, in one text without its [`Percent::end`].
    ///
    /// # Errors
    /// The text is not as the format says.
    pub fn read(&self, mut text: &[u8]) -> Outcome<(Record, Option<i32>, bool)> {
        let mut record = Record::default();
        let (mut partition, mut timed) = (None, false);
        let failed = |what: String| Failure::new(Kind::Failed, what);
        for (at, piece) in self.pieces.iter().enumerate() {
            let is_last = at + 1 == self.pieces.len();
            if let Piece::Text(expected) = piece {
                text = match text.strip_prefix(expected.as_slice()) {
                    Some(rest) => rest,
                    None if is_last => text,
                    None => return Err(failed(format!("{:?} is missing", String::from_utf8_lossy(expected)))),
                };
                continue;
            }
            let length = match self.pieces.get(at + 1) {
                Some(Piece::Text(next)) if at + 2 < self.pieces.len() => text
                    .windows(next.len())
                    .position(|window| window == next)
                    .ok_or_else(|| failed(format!("{:?} is missing", String::from_utf8_lossy(next))))?,
                _ => text.len(),
            };
            let (own, rest) = text.split_at(length);
            text = rest;
            let number = || std::str::from_utf8(own).ok().and_then(|text| text.trim().parse::<i64>().ok());
            let not_a_number = || failed(format!("{:?} is no number", String::from_utf8_lossy(own)));
            match piece {
                Piece::Key(coding) => record.key = Some(decode(*coding, own)?),
                Piece::Value(coding) => record.value = Some(decode(*coding, own)?),
                Piece::Headers => record.headers = headers(own)?,
                Piece::Time => (record.timestamp, timed) = (number().filter(|ms| *ms >= 0).ok_or_else(not_a_number)?, true),
                Piece::Partition => partition = Some(number().and_then(|n| i32::try_from(n).ok()).ok_or_else(not_a_number)?),
                _ => unreachable!("refused by reading()"),
            }
        }
        Ok((record, partition, timed))
    }

    /// Appends the record as text to `out`.
    pub fn write(&self, out: &mut Vec<u8>, topic: &str, partition: i32, record: &Record) {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or_else(|| "-1".to_owned(), |part| part.len().to_string());
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Key(coding) => encode(*coding, record.key.as_deref().unwrap_or_default(), out),
                Piece::Value(coding) => encode(*coding, record.value.as_deref().unwrap_or_default(), out),
                Piece::Headers => {
                    for (at, (name, value)) in record.headers.iter().enumerate() {
                        out.extend_from_slice(if at > 0 { b"," } else { b"" });
                        out.extend_from_slice(name);
                        out.push(b'=');
                        out.extend_from_slice(value.as_deref().unwrap_or_default());
                    }
                }
                Piece::Topic => out.extend_from_slice(topic.as_bytes()),
                Piece::Partition => out.extend_from_slice(partition.to_string().as_bytes()),
                Piece::Offset => out.extend_from_slice(record.offset.to_string().as_bytes()),
                Piece::Time => out.extend_from_slice(record.timestamp.to_string().as_bytes()),
                Piece::KeyLength => out.extend_from_slice(length(&record.key).as_bytes()),
                Piece::ValueLength => out.extend_from_slice(length(&record.value).as_bytes()),
            }
        }
    }
}

fn escape(rest: &mut &str) -> Option<u8> {
    let c = rest.chars().next()?;
    *rest = &rest[c.len_utf8()..];
    Some(match c {
        'n' => b'\n',
        't' => b'\t',
        'r' => b'\r',
        '0' => 0,
        '\\' => b'\\',
        'x' => {
            let digits = rest.get(..2)?;
            *rest = &rest[2..];
            *unhex(digits.as_bytes())?.first()?
        }
        _ => return None,
    })
}

fn field(rest: &mut &str) -> Result<Piece, String> {
    let c = rest.chars().next().ok_or("ends with %")?;
    *rest = &rest[c.len_utf8()..];
    let mut coding = Coding::Bytes;
    if matches!(c, 'k' | 'v' | 's') && rest.starts_with('{') {
        let (name, behind) = rest[1..].split_once('}').ok_or("has a { without }")?;
        coding = match name {
            "hex" => Coding::Hex,
            "base64" => Coding::Base64,
            other => return Err(format!("asks for {other:?}, where there are hex and base64")),
        };
        *rest = behind;
    }
    Ok(match c {
        'k' => Piece::Key(coding),
        'v' | 's' => Piece::Value(coding),
        'h' => Piece::Headers,
        't' => Piece::Topic,
        'p' => Piece::Partition,
        'o' => Piece::Offset,
        'd' | 'T' => Piece::Time,
        'K' => Piece::KeyLength,
        'V' | 'S' => Piece::ValueLength,
        other => return Err(format!("has %{other}, which is no field")),
    })
}

/// `a=1,b=2`.
fn headers(text: &[u8]) -> Outcome<Vec<crate::records::RecordHeader>> {
    let one = |part: &[u8]| match part.iter().position(|byte| *byte == b'=') {
        Some(at) => Ok((part[..at].to_vec(), Some(part[at + 1..].to_vec()))),
        None => Err(Failure::new(Kind::Failed, format!("the header {:?} is not NAME=VALUE", String::from_utf8_lossy(part)))),
    };
    if text.is_empty() { Ok(Vec::new()) } else { text.split(|byte| *byte == b',').map(one).collect() }
}

fn decode(coding: Coding, text: &[u8]) -> Outcome<Vec<u8>> {
    let (decoded, name) = match coding {
        Coding::Bytes => return Ok(text.to_vec()),
        Coding::Hex => (unhex(text), "hex"),
        Coding::Base64 => (unbase64(text), "base64"),
    };
    decoded.ok_or_else(|| Failure::new(Kind::Failed, format!("{:?} is not {name}", String::from_utf8_lossy(text))))
}

fn encode(coding: Coding, bytes: &[u8], out: &mut Vec<u8>) {
    match coding {
        Coding::Bytes => out.extend_from_slice(bytes),
        Coding::Hex => bytes.iter().for_each(|byte| out.extend_from_slice(format!("{byte:02x}").as_bytes())),
        Coding::Base64 => out.extend_from_slice(base64(bytes).as_bytes()),
    }
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, with padding.
pub fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let at = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = BASE64[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// `None` for what [`base64`] does not write.
pub fn unbase64(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut out = Vec::new();
    for chunk in text[..text.len() - padding].chunks(4) {
        let mut bits = 0;
        for place in 0..4 {
            let digit = chunk.get(place).map_or(Some(0), |byte| BASE64.iter().position(|known| known == byte))?;
            bits = bits << 6 | digit as u32;
        }
        out.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again() {
        for (format, text) in [
            ("%v\n", "plain\n"),
            ("%k\\t%v\\n", "key\tvalue\twith\n"),
            ("%k{hex}:%v{base64}\n", "00ff:AAEC/w==\n"),
            ("%p %d %h|%k=%v;", "3 17 a=1,b=|k=v;"),
            ("\\x01%v%%\n", "\u{1}x%\n"),
        ] {
            let format = Percent::reading(format).unwrap();
            let own = text.as_bytes().strip_suffix(format.end()).unwrap();
            let (record, partition, _) = format.read(own).unwrap();
            let mut out = Vec::new();
            format.write(&mut out, "t", partition.unwrap_or(0), &record);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn all_fields_are_written() {
        let record = Record { offset: 5, timestamp: 9, key: Some(b"k".to_vec()), value: None, headers: vec![] };
        let mut out = Vec::new();
        Percent::parse("%t-%p@%o %T %K %V %k{hex}").unwrap().write(&mut out, "topic", 2, &record);
        assert_eq!(String::from_utf8(out).unwrap(), "topic-2@5 9 1 -1 6b");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in ["%", "%z", "%k{oct}", "%k{hex", "\\q", "\\x0"] {
            assert!(Percent::parse(text).is_err(), "{text}");
        }
        for text in ["", "text", "%k%v\n", "%o\n", "%t %v"] {
            assert!(Percent::reading(text).is_err(), "{text}");
        }
        let format = Percent::reading("%k{hex}:%d:%v{base64}").unwrap();
        for text in ["0g:1:", "0:1:", "00:x:", "00:1", "00:1:A", "00:1:A==="] {
            assert!(format.read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(unbase64(text.as_bytes()).as_deref(), Some(bytes.as_bytes()));
        }
    }
}
