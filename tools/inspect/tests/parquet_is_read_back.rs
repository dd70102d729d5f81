//! What is exported as Parquet is read back as it was: nulls, headers, bytes that are no text, and whole row groups of it.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/kafka.rs"]
mod kafka;
mod support;

use kafka::{TOPIC_ID, build, file, recrc};
use millrace_base::batch::{Builder, HEADER_BYTES, LENGTH_OVERHEAD, patch, place, write_varint};
use millrace_base::prng::Prng;
use millrace_inspect::{As, Export, InspectError, Outcome, Verb, Window};
use parquet::data_type::ByteArray;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use std::fs;
use std::path::{Path, PathBuf};
use support::{NOW, Scratch, inspect, try_inspect};

fn verb(what: &[&str], to: Option<PathBuf>) -> Verb {
    let what = what.iter().map(|name| (*name).to_owned()).collect();
    Verb::Export(Export { what, offsets: 0..i64::MAX, times: Window::ALL, how: As::Parquet, isolation: None, to })
}

fn rows(path: &Path) -> Vec<Row> {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    reader.get_row_iter(None).unwrap().map(Result::unwrap).collect()
}

fn cell<'a>(row: &'a Row, name: &str) -> &'a Field {
    row.get_column_iter().find(|(other, _)| *other == name).unwrap().1
}

fn bytes(bytes: &[u8]) -> Field {
    Field::Bytes(ByteArray::from(bytes.to_vec()))
}

/// A record as Kafka writes it: offset delta, key, value, headers.
fn record(delta: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
    let part = |body: &mut Vec<u8>, part: Option<&[u8]>| {
        write_varint(body, part.map_or(-1, |part| part.len() as i64));
        body.extend(part.unwrap_or_default());
    };
    let mut body = vec![0];
    write_varint(&mut body, 0);
    write_varint(&mut body, delta);
    part(&mut body, key);
    part(&mut body, value);
    write_varint(&mut body, headers.len() as i64);
    for (name, value) in headers {
        part(&mut body, Some(name));
        part(&mut body, *value);
    }
    let mut whole = Vec::new();
    write_varint(&mut whole, body.len() as i64);
    [whole, body].concat()
}

fn batch_of(base: i64, records: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = Builder::new(NOW);
    records.iter().for_each(|_| builder.push(NOW, None, None));
    let mut bytes = [&builder.finish()[..HEADER_BYTES], &records.concat()].concat();
    let length = (bytes.len() - LENGTH_OVERHEAD) as i32;
    bytes[place::LENGTH..place::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    recrc(&mut bytes);
    patch(&mut bytes, base, 4);
    bytes
}

#[test]
fn every_column_is_what_the_record_has() {
    let (scratch, to) = (Scratch::new(), Scratch::new());
    let folder = scratch.0.join("odd-3");
    fs::create_dir_all(&folder).unwrap();
    let batch = batch_of(
        7,
        &[
            record(0, Some(b"key"), Some(b"\xff\0"), &[(b"a", Some(b"1")), (b"\xfe", None), (b"c", Some(b""))]),
            record(1, None, None, &[]),
            record(2, Some(b""), Some(b"last"), &[(b"d", Some(b"4"))]),
        ],
    );
    fs::write(file(&folder, 7, "log"), batch).unwrap();
    let gave = inspect(&verb(&[], Some(to.0.join("out"))), &scratch.0);
    assert_eq!((gave.outcome, gave.out.as_str()), (Outcome::Clean, ""), "{}", gave.talk);
    let rows = rows(&to.0.join("out/odd-3.parquet"));
    assert_eq!(rows.len(), 3);
    for (row, offset) in rows.iter().zip(7..) {
        assert_eq!((cell(row, "topic"), cell(row, "partition")), (&Field::Str("odd".to_owned()), &Field::Int(3)));
        assert_eq!((cell(row, "offset"), cell(row, "timestamp")), (&Field::Long(offset), &Field::TimestampMillis(NOW)));
        assert_eq!((cell(row, "timestamp_type"), cell(row, "epoch")), (&Field::Str("create".to_owned()), &Field::Int(4)));
        let none = ["producer_id", "producer_epoch", "transaction", "control"].map(|name| cell(row, name));
        assert!(none.iter().all(|cell| **cell == Field::Null) && *cell(row, "transactional") == Field::Bool(false));
    }
    let both = |row: &Row| (cell(row, "key").clone(), cell(row, "value").clone());
    assert_eq!(both(&rows[0]), (bytes(b"key"), bytes(b"\xff\0")));
    assert_eq!(both(&rows[1]), (Field::Null, Field::Null));
    assert_eq!(both(&rows[2]), (bytes(b""), bytes(b"last")));
    let headers = |row: &Row| match cell(row, "headers") {
        Field::ListInternal(list) => list.elements().to_vec(),
        other => panic!("{other} is no list"),
    };
    let header = |name: &[u8], value: Option<&[u8]>| {
        Field::Group(Row::new(vec![("name".to_owned(), bytes(name)), ("value".to_owned(), value.map_or(Field::Null, bytes))]))
    };
    assert_eq!(headers(&rows[0]), [header(b"a", Some(b"1")), header(b"\xfe", None), header(b"c", Some(b""))]);
    assert_eq!((headers(&rows[1]), headers(&rows[2])), (vec![], vec![header(b"d", Some(b"4"))]));
}

#[test]
fn transactions_and_markers_are_named() {
    let (scratch, to) = (Scratch::new(), Scratch::new());
    build(&scratch.0);
    assert!(TOPIC_ID.len() == 22);
    inspect(&verb(&["orders"], Some(to.0.clone())), &scratch.0);
    let rows = rows(&to.0.join("orders-0.parquet"));
    let offset = |row: &Row| if let Field::Long(offset) = cell(row, "offset") { *offset } else { -1 };
    assert_eq!(rows.iter().map(offset).collect::<Vec<_>>(), kafka::offsets());
    let at = |wanted: i64| rows.iter().find(|row| offset(row) == wanted).unwrap();
    let text = |text: &str| Field::Str(text.to_owned());
    assert_eq!((cell(at(21), "transaction"), cell(at(21), "transactional")), (&text("aborted"), &Field::Bool(true)));
    assert_eq!((cell(at(26), "transaction"), cell(at(26), "producer_id")), (&text("committed"), &Field::Long(9)));
    assert_eq!(
        (cell(at(24), "control"), cell(at(27), "control"), cell(at(40), "control")),
        (&text("abort"), &text("commit"), &Field::Null)
    );
}

#[test]
fn row_groups_stay_small_and_all_records_are_in_them() {
    let (scratch, to) = (Scratch::new(), Scratch::new());
    let folder = scratch.0.join("large-0");
    fs::create_dir_all(&folder).unwrap();
    let mut prng = Prng::new(11);
    let (mut log, mut values) = (Vec::new(), Vec::new());
    for base in 0..90i64 {
        let value: Vec<u8> = (0..1usize << 17).flat_map(|_| prng.next_u64().to_le_bytes()).collect();
        let mut builder = Builder::new(NOW);
        builder.push(NOW + base, None, Some(&value));
        let mut batch = builder.finish();
        patch(&mut batch, base, 0);
        log.extend(batch);
        values.push(value);
    }
    fs::write(file(&folder, 0, "log"), log).unwrap();
    inspect(&verb(&[], Some(to.0.clone())), &scratch.0);
    let path = to.0.join("large-0.parquet");
    let groups = SerializedFileReader::new(fs::File::open(&path).unwrap()).unwrap().metadata().num_row_groups();
    assert_eq!(groups, 3, "90 records of a megabyte in groups of 32");
    for (row, value) in rows(&path).iter().zip(&values) {
        assert!(*cell(row, "value") == bytes(value));
    }
}

#[test]
fn without_a_folder_it_is_refused_and_no_file_is_written_over() {
    let (scratch, to) = (Scratch::new(), Scratch::new());
    build(&scratch.0);
    assert!(matches!(try_inspect(&verb(&[], None), &scratch.0), Err(InspectError::Usage(text)) if text.contains("--out")));
    inspect(&verb(&[], Some(to.0.clone())), &scratch.0);
    let before = fs::read(to.0.join("orders-0.parquet")).unwrap();
    assert!(try_inspect(&verb(&[], Some(to.0.clone())), &scratch.0).is_err());
    assert_eq!(fs::read(to.0.join("orders-0.parquet")).unwrap(), before);
}
