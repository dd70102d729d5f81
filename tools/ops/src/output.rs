//! What a command prints: aligned columns for people, JSON or YAML for machines.
//!
//! 1. A command fills a [`Table`] or a [`Document`] of named parts; keys are lower case with underscores, and headings are made from them.
//! 2. Data goes to standard output, talk to standard error.
//! 3. Whoever reads may stop at any time: a broken pipe ends the command quietly ([`Kind::Closed`]).
//!
//! Invariants: all formats show the same things; a list is an array however long it is, a thing that may be absent is null.

use std::io::{self, ErrorKind, Write};

use crate::failure::{Failure, Kind, Outcome};
use millrace_base::value::Value;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Text,
    Json,
    Yaml,
}

impl Format {
    pub const NAMES: [&str; 3] = ["text", "json", "yaml"];

    /// `None` for a name that is not in [`Format::NAMES`].
    pub fn from_name(name: &str) -> Option<Format> {
        [Format::Text, Format::Json, Format::Yaml]
            .into_iter()
            .zip(Format::NAMES)
            .find(|(_, known)| *known == name)
            .map(|(format, _)| format)
    }
}

/// Rows under keys.
#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    keys: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub fn new(keys: &[&'static str]) -> Table {
        Table { keys: keys.to_vec(), rows: Vec::new() }
    }

    /// # Panics
    /// When there is not one cell for each key.
    pub fn row(&mut self, cells: Vec<Value>) {
        assert_eq!(cells.len(), self.keys.len());
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn value(&self) -> Value {
        let row = |row: &Vec<Value>| Value::map(self.keys.iter().copied().zip(row.iter().cloned()));
        Value::List(self.rows.iter().map(row).collect())
    }

    fn text(&self, headings: bool) -> String {
        let heading = self.keys.iter().map(|key| key.replace('_', "-").to_ascii_uppercase()).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(cell).collect());
        let lines: Vec<Vec<String>> = headings.then_some(heading).into_iter().chain(rows).collect();
        aligned(&lines)
    }
}

/// Columns two blanks apart; the last is not padded.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// One cell for a person; control characters, which a broker or another client may have sent, do not reach the terminal.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::Text(text) => text.clone(),
        Value::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Value::Int(value) => value.to_string(),
        Value::Real(value) => format!("{value:.3}"),
        Value::List(items) if items.is_empty() => "-".to_owned(),
        Value::List(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Map(fields) => fields.iter().map(|(key, value)| format!("{key}={}", cell(value))).collect::<Vec<_>>().join(","),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[derive(Clone, PartialEq, Debug)]
pub enum Part {
    Fields(Vec<(&'static str, Value)>),
    Table(Table),
}

/// Named parts about one thing: fields are its own, a table is a list under its name.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Document {
    parts: Vec<(&'static str, Part)>,
}

impl Document {
    pub fn new() -> Document {
        Document::default()
    }

    #[must_use]
    pub fn fields(mut self, fields: Vec<(&'static str, Value)>) -> Document {
        self.parts.push(("", Part::Fields(fields)));
        self
    }

    #[must_use]
    pub fn table(mut self, name: &'static str, table: Table) -> Document {
        self.parts.push((name, Part::Table(table)));
        self
    }

    fn value(&self) -> Value {
        let mut fields = Vec::new();
        for (name, part) in &self.parts {
            match part {
                Part::Fields(own) => fields.extend(own.iter().cloned()),
                Part::Table(table) => fields.push((*name, table.value())),
            }
        }
        Value::map(fields)
    }

    /// Empty tables are left out.
    fn text(&self, headings: bool) -> String {
        let mut parts = Vec::new();
        for (_, part) in &self.parts {
            match part {
                Part::Fields(own) => {
                    let line = |(key, value): &(&str, Value)| vec![key.replace('_', " "), cell(value)];
                    parts.push(aligned(&own.iter().map(line).collect::<Vec<_>>()));
                }
                Part::Table(table) if table.is_empty() => {}
                Part::Table(table) => parts.push(table.text(headings)),
            }
        }
        parts.join("\n")
    }
}

/// Where output goes and how it looks.
pub struct Output<'a> {
    pub format: Format,
    /// Tables have a line of headings.
    pub headings: bool,
    pub to: &'a mut dyn Write,
}

impl Output<'_> {
    /// # Errors
    /// The output cannot be written, or nobody reads it any more.
    pub fn table(&mut self, table: &Table) -> Outcome<()> {
        match self.format {
            Format::Text => self.text(&table.text(self.headings)),
            Format::Json | Format::Yaml => self.value(&table.value()),
        }
    }

    /// # Errors
    /// As for [`Output::table`].
    pub fn document(&mut self, document: &Document) -> Outcome<()> {
        match self.format {
            Format::Text => self.text(&document.text(self.headings)),
            Format::Json | Format::Yaml => self.value(&document.value()),
        }
    }

    /// Several things of one kind, always as a list.
    ///
    /// # Errors
    /// As for [`Output::table`].
    pub fn documents(&mut self, documents: &[Document]) -> Outcome<()> {
        match self.format {
            Format::Text => {
                let texts: Vec<String> = documents.iter().map(|document| document.text(self.headings)).collect();
                self.text(&texts.join("\n"))
            }
            Format::Json | Format::Yaml => self.value(&Value::List(documents.iter().map(Document::value).collect())),
        }
    }

    fn value(&mut self, value: &Value) -> Outcome<()> {
        let text = if self.format == Format::Yaml { value.yaml() } else { value.json_blocks() };
        self.text(&text)
    }

    /// Writes `text` as it stands, and flushes.
    ///
    /// # Errors
    /// As for [`Output::table`].
    pub fn text(&mut self, text: &str) -> Outcome<()> {
        self.bytes(text.as_bytes())?;
        self.to.flush().map_err(written)
    }

    /// Writes bytes as they stand; may be held back until the next [`Output::text`].
    ///
    /// # Errors
    /// As for [`Output::table`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.to.write_all(bytes).map_err(written)
    }
}

/// What a failed write to the output means.
pub fn written(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::new(Kind::Closed, "the reader of standard output has gone"),
        _ => Failure::new(Kind::Failed, format!("cannot write to standard output: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format, print: impl FnOnce(&mut Output<'_>) -> Outcome<()>) -> String {
        let mut bytes = Vec::new();
        print(&mut Output { format, headings: true, to: &mut bytes }).expect("a vector takes all");
        String::from_utf8(bytes).expect("text")
    }

    fn table() -> Table {
        let mut table = Table::new(&["topic", "log_start"]);
        table.row(vec!["a".into(), 7.into()]);
        table.row(vec!["long\u{1b}[0m".into(), Value::Null]);
        table
    }

    #[test]
    fn all_formats_show_the_same() {
        assert_eq!(printed(Format::Text, |o| o.table(&table())), "TOPIC     LOG-START\na         7\nlong\u{fffd}[0m  -\n");
        assert_eq!(
            printed(Format::Yaml, |o| o.table(&table())),
            "- topic: a\n  log_start: 7\n- topic: \"long\\u001b[0m\"\n  log_start: null\n"
        );
        assert!(printed(Format::Json, |o| o.table(&table())).contains("\"log_start\": 7"));
        assert_eq!(printed(Format::Json, |o| o.table(&Table::new(&["x"]))), "[]\n");
        let document = Document::new().fields(vec![("name", "a".into()), ("is_internal", false.into())]).table("rows", table());
        let text = printed(Format::Text, |o| o.document(&document));
        assert!(text.starts_with("name         a\nis internal  no\n\nTOPIC"), "{text}");
        let yaml = printed(Format::Yaml, |o| o.documents(std::slice::from_ref(&document)));
        assert!(yaml.starts_with("- name: a\n  is_internal: false\n  rows:\n    - topic: a\n"), "{yaml}");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let failure = Output { format: Format::Json, headings: true, to: &mut Gone }.table(&table()).expect_err("nobody reads");
        assert_eq!(failure.kind, Kind::Closed);
    }
}
