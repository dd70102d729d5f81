//! The texts of records, read from a stream by a thread of its own, so that nobody who waits for a record holds up those before it.
//!
//! Invariants: at most three pieces of [`PIECE_BYTES`] or one record wait; a record has a bound.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::failure::{Failure, Kind, Outcome};
use crate::json_record;
use crate::percent::Percent;
use crate::records::Record;

const PIECE_BYTES: usize = 1 << 20;
/// That wait to be taken.
pub const PIECES_MAX: usize = 2;
const RECORD_BYTES_MAX: u64 = 128 << 20;

/// How a record is written in the input.
pub enum Shape {
    Percent(Percent),
    /// One line of JSON.
    Json,
}

impl Shape {
    /// What ends a record.
    pub fn end(&self) -> &[u8] {
        match self {
            Shape::Percent(format) => format.end(),
            Shape::Json => b"\n",
        }
    }

    /// The record, its partition if it is given, and whether a time is. `None` for an empty line among JSON.
    ///
    /// # Errors
    /// The text is no record.
    pub fn read(&self, text: &[u8]) -> Outcome<Option<(Record, Option<i32>, bool)>> {
        match self {
            Shape::Percent(format) => format.read(text).map(Some),
            Shape::Json if text.trim_ascii().is_empty() => Ok(None),
            Shape::Json => json_record::read(text).map(Some),
        }
    }
}

/// The reading end of the input.
pub struct Input {
    from: BufReader<Box<dyn Read + Send>>,
    end: Vec<u8>,
    number: u64,
}

impl Input {
    /// Begins to read; the channel gives what one read brought, cut at `end`, and closes at the input's end. The thread lives until its next
    /// piece finds nobody who wants it.
    pub fn begin(from: Box<dyn Read + Send>, end: Vec<u8>) -> Receiver<Outcome<Vec<Vec<u8>>>> {
        let (sender, receiver) = sync_channel(PIECES_MAX);
        let input = Input { from: BufReader::with_capacity(PIECE_BYTES, from), end, number: 0 };
        std::thread::spawn(move || input.pump(&sender));
        receiver
    }

    fn pump(mut self, sender: &SyncSender<Outcome<Vec<Vec<u8>>>>) {
        loop {
            let piece = self.piece();
            let is_last = piece.as_ref().map_or(true, Vec::is_empty);
            // An empty piece is the input's end.
            if piece.as_ref().is_ok_and(Vec::is_empty) || sender.send(piece).is_err() || is_last {
                return;
            }
        }
    }

    /// All whole records that have been read, at least one; none at the input's end.
    fn piece(&mut self) -> Outcome<Vec<Vec<u8>>> {
        let mut texts = Vec::new();
        let last = *self.end.last().expect("a text has bytes");
        while let Some(text) = self.text(last)? {
            texts.push(text);
            if !self.from.buffer().contains(&last) {
                break;
            }
        }
        Ok(texts)
    }

    fn text(&mut self, last: u8) -> Outcome<Option<Vec<u8>>> {
        let mut text = Vec::new();
        loop {
            let room = (RECORD_BYTES_MAX + 1).saturating_sub(text.len() as u64);
            let read = self.from.by_ref().take(room).read_until(last, &mut text);
            let read = read.map_err(|error| Failure::new(Kind::Failed, format!("cannot read the input: {error}")))?;
            if text.len() as u64 > RECORD_BYTES_MAX {
                return Err(Failure::new(Kind::Failed, format!("record {} has more than {RECORD_BYTES_MAX} bytes", self.number + 1)));
            }
            if text.ends_with(&self.end) {
                text.truncate(text.len() - self.end.len());
                self.number += 1;
                return Ok(Some(text));
            }
            if read == 0 {
                self.number += 1;
                return Ok(Some(text).filter(|text| !text.is_empty()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(input: &'static [u8], end: &str) -> Vec<Vec<u8>> {
        let pieces = Input::begin(Box::new(input), end.as_bytes().to_vec());
        pieces.iter().flat_map(|piece| piece.expect("it can be read")).collect()
    }

    #[test]
    fn the_input_is_cut_at_the_end_of_each_record() {
        assert_eq!(texts(b"a\n\nb\n", "\n"), [b"a".to_vec(), b"".to_vec(), b"b".to_vec()]);
        assert_eq!(texts(b"a;\nb\n;;\nc", ";\n"), [b"a".to_vec(), b"b\n;".to_vec(), b"c".to_vec()]);
        assert!(texts(b"", "\n").is_empty());
    }

    #[test]
    fn what_has_been_read_does_not_wait_for_the_rest() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let pieces = Input::begin(Box::new(reader), b"\n".to_vec());
        std::io::Write::write_all(&mut writer, b"one\ntwo").unwrap();
        assert_eq!(pieces.recv().unwrap(), Ok(vec![b"one".to_vec()]));
        drop(writer);
        assert_eq!(pieces.recv().unwrap(), Ok(vec![b"two".to_vec()]));
        assert!(pieces.recv().is_err(), "the channel closes at the end");
    }
}
