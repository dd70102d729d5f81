//! Records as a Parquet file.
//!
//! 1. Rows are gathered column by column; key and value bytes go one after the other into one buffer.
//! 2. At [`GROUP_BYTES`] or [`GROUP_ROWS`] they are written as a row group, compressed with snappy.
//! 3. [`Columns::finish`] writes the rest and the footer; without it there is no file that can be read.
//!
//! | column | type | |
//! |---|---|---|
//! | `topic`, `partition`, `offset` | text, 32 bits, 64 bits | |
//! | `timestamp`, `timestamp_type` | milliseconds in UTC, text | `create` or `append` |
//! | `epoch` | 32 bits | none where the batch has none |
//! | `producer_id`, `producer_epoch` | 64 bits, 16 bits | none where there is no producer |
//! | `transactional`, `transaction` | bit, text | what became of it |
//! | `control` | text | none but in control records |
//! | `key`, `value` | bytes | none: null |
//! | `headers` | list of `name`, `value` | bytes: names too are what a producer sent |
//!
//! Invariants: memory <= one row group and the largest batch.

use crate::log::Log;
use crate::records::{Record, control_name};
use crate::transactions::Fate;
use bytes::Bytes;
use millrace_base::batch::Header;
use parquet::basic::{Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Kind};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type, TypePtr};
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

const GROUP_BYTES: usize = 32 << 20;
const GROUP_ROWS: usize = 1 << 20;

/// Definition levels: is there, is not.
const THERE: i16 = 1;
const NONE: i16 = 0;

/// A column whose rows may have nothing.
struct Optional<T> {
    values: Vec<T>,
    levels: Vec<i16>,
}

impl<T> Default for Optional<T> {
    fn default() -> Optional<T> {
        Optional { values: Vec::new(), levels: Vec::new() }
    }
}

impl<T> Optional<T> {
    fn push(&mut self, value: Option<T>) {
        self.levels.push(if value.is_some() { THERE } else { NONE });
        self.values.extend(value);
    }
}

/// Names and values of headers, several a row.
#[derive(Default)]
struct Headers {
    names: Vec<Range<usize>>,
    values: Vec<Range<usize>>,
    /// 1 where it is not the first of its row.
    repetition: Vec<i16>,
    /// 0: a row without headers.
    name_levels: Vec<i16>,
    /// 2: a value, 1: a header without one.
    value_levels: Vec<i16>,
}

#[derive(Default)]
struct Rows {
    /// All bytes that ranges point into.
    bytes: Vec<u8>,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    is_append_time: Vec<bool>,
    epochs: Optional<i32>,
    producers: Optional<i64>,
    producer_epochs: Optional<i32>,
    is_transactional: Vec<bool>,
    transactions: Optional<&'static str>,
    controls: Optional<&'static str>,
    keys: Optional<Range<usize>>,
    values: Optional<Range<usize>>,
    headers: Headers,
}

impl Rows {
    fn add(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    fn push(&mut self, header: &Header, record: &Record<'_>, fate: Option<Fate>) {
        self.offsets.push(record.offset);
        self.timestamps.push(record.timestamp);
        self.is_append_time.push(header.is_append_time());
        self.epochs.push(Some(header.epoch).filter(|epoch| *epoch >= 0));
        let has_producer = header.producer_id >= 0;
        self.producers.push(has_producer.then_some(header.producer_id));
        self.producer_epochs.push(has_producer.then_some(i32::from(header.producer_epoch)));
        self.is_transactional.push(header.is_transactional());
        self.transactions.push(fate.map(Fate::name));
        self.controls.push(header.is_control().then(|| control_name(record.key)));
        let key = record.key.map(|bytes| self.add(bytes));
        self.keys.push(key);
        let value = record.value.map(|bytes| self.add(bytes));
        self.values.push(value);
        if record.header_count == 0 {
            self.headers.repetition.push(0);
            self.headers.name_levels.push(0);
            self.headers.value_levels.push(0);
        }
        for (number, (name, value)) in record.headers().enumerate() {
            let name = self.add(name);
            let value = value.map(|value| self.add(value));
            self.headers.repetition.push(i16::from(number > 0));
            self.headers.name_levels.push(1);
            self.headers.value_levels.push(if value.is_some() { 2 } else { 1 });
            self.headers.names.push(name);
            self.headers.values.extend(value);
        }
    }
}

/// A Parquet file that is being written.
pub struct Columns<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    topic: ByteArray,
    partition: i32,
    rows: Rows,
}

fn schema() -> Result<TypePtr, ParquetError> {
    let column = |name: &str, kind: Kind, repetition: Repetition, logical: Option<LogicalType>| {
        Type::primitive_type_builder(name, kind).with_repetition(repetition).with_logical_type(logical).build().map(Arc::new)
    };
    let (required, optional) = (Repetition::REQUIRED, Repetition::OPTIONAL);
    let text = || Some(LogicalType::String);
    let header = vec![column("name", Kind::BYTE_ARRAY, required, None)?, column("value", Kind::BYTE_ARRAY, optional, None)?];
    let element = Type::group_type_builder("element").with_repetition(required).with_fields(header).build()?;
    let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED).with_fields(vec![Arc::new(element)]).build()?;
    let headers = Type::group_type_builder("headers")
        .with_repetition(required)
        .with_logical_type(Some(LogicalType::List))
        .with_fields(vec![Arc::new(list)])
        .build()?;
    let milliseconds = LogicalType::Timestamp { is_adjusted_to_u_t_c: true, unit: TimeUnit::MILLIS };
    let fields = vec![
        column("topic", Kind::BYTE_ARRAY, required, text())?,
        column("partition", Kind::INT32, required, None)?,
        column("offset", Kind::INT64, required, None)?,
        column("timestamp", Kind::INT64, required, Some(milliseconds))?,
        column("timestamp_type", Kind::BYTE_ARRAY, required, text())?,
        column("epoch", Kind::INT32, optional, None)?,
        column("producer_id", Kind::INT64, optional, None)?,
        column("producer_epoch", Kind::INT32, optional, Some(LogicalType::Integer { bit_width: 16, is_signed: true }))?,
        column("transactional", Kind::BOOLEAN, required, None)?,
        column("transaction", Kind::BYTE_ARRAY, optional, text())?,
        column("control", Kind::BYTE_ARRAY, optional, text())?,
        column("key", Kind::BYTE_ARRAY, optional, None)?,
        column("value", Kind::BYTE_ARRAY, optional, None)?,
        Arc::new(headers),
    ];
    Type::group_type_builder("record").with_fields(fields).build().map(Arc::new)
}

/// The system's error where there is one in it.
fn plain(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other.to_string()),
        },
        other => io::Error::other(other.to_string()),
    }
}

impl<W: Write + Send> Columns<W> {
    /// For the records of `log`.
    ///
    /// # Errors
    /// What `out` gives; likewise below.
    pub fn new(out: W, log: &Log) -> io::Result<Columns<W>> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("millrace inspect ", env!("CARGO_PKG_VERSION")).to_owned());
        for grows in ["offset", "timestamp"] {
            let path = || ColumnPath::from(grows);
            properties = properties.set_column_dictionary_enabled(path(), false).set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED);
        }
        let schema = schema().map_err(plain)?;
        let writer = SerializedFileWriter::new(out, schema, Arc::new(properties.build())).map_err(plain)?;
        let partition = i32::try_from(log.partition).unwrap_or(i32::MAX);
        Ok(Columns { writer, topic: ByteArray::from(log.topic.as_str()), partition, rows: Rows::default() })
    }

    pub fn push(&mut self, header: &Header, record: &Record<'_>, fate: Option<Fate>) -> io::Result<()> {
        self.rows.push(header, record, fate);
        let is_full = self.rows.bytes.len() >= GROUP_BYTES || self.rows.offsets.len() + self.rows.headers.names.len() >= GROUP_ROWS;
        if is_full { self.group().map_err(plain) } else { Ok(()) }
    }

    /// Writes what was gathered.
    fn group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        let count = rows.offsets.len();
        if count == 0 {
            return Ok(());
        }
        let bytes = Bytes::from(rows.bytes);
        let cut =
            |ranges: Vec<Range<usize>>| -> Vec<ByteArray> { ranges.into_iter().map(|range| ByteArray::from(bytes.slice(range))).collect() };
        let words = |words: Vec<&'static str>| -> Vec<ByteArray> {
            words.into_iter().map(|word| ByteArray::from(Bytes::from_static(word.as_bytes()))).collect()
        };
        let kinds = rows.is_append_time.iter().map(|append| if *append { "append" } else { "create" }).collect();
        let mut group = self.writer.next_row_group()?;
        // In the order of the schema.
        column::<ByteArrayType, W>(&mut group, &vec![self.topic.clone(); count], None, None)?;
        column::<Int32Type, W>(&mut group, &vec![self.partition; count], None, None)?;
        column::<Int64Type, W>(&mut group, &rows.offsets, None, None)?;
        column::<Int64Type, W>(&mut group, &rows.timestamps, None, None)?;
        column::<ByteArrayType, W>(&mut group, &words(kinds), None, None)?;
        column::<Int32Type, W>(&mut group, &rows.epochs.values, Some(&rows.epochs.levels), None)?;
        column::<Int64Type, W>(&mut group, &rows.producers.values, Some(&rows.producers.levels), None)?;
        column::<Int32Type, W>(&mut group, &rows.producer_epochs.values, Some(&rows.producer_epochs.levels), None)?;
        column::<BoolType, W>(&mut group, &rows.is_transactional, None, None)?;
        column::<ByteArrayType, W>(&mut group, &words(rows.transactions.values), Some(&rows.transactions.levels), None)?;
        column::<ByteArrayType, W>(&mut group, &words(rows.controls.values), Some(&rows.controls.levels), None)?;
        column::<ByteArrayType, W>(&mut group, &cut(rows.keys.values), Some(&rows.keys.levels), None)?;
        column::<ByteArrayType, W>(&mut group, &cut(rows.values.values), Some(&rows.values.levels), None)?;
        let headers = rows.headers;
        column::<ByteArrayType, W>(&mut group, &cut(headers.names), Some(&headers.name_levels), Some(&headers.repetition))?;
        column::<ByteArrayType, W>(&mut group, &cut(headers.values), Some(&headers.value_levels), Some(&headers.repetition))?;
        group.close().map(drop)
    }

    /// Ends the file.
    pub fn finish(mut self) -> io::Result<()> {
        self.group().map_err(plain)?;
        self.writer.close().map(drop).map_err(plain)
    }
}

/// The next column of a row group.
fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
    repetition: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else { return Err(ParquetError::General("the schema has fewer columns".to_owned())) };
    column.typed::<T>().write_batch(values, levels, repetition)?;
    column.close()
}
