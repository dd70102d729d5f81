//! Where what is found goes: lines for people, or one value after the other for programs.
//!
//! 1. As text, data are lines and tables on standard output, remarks lines on standard error.
//! 2. As JSON every thing is one object on a line of its own, as YAML one item of a list; `kind` says what it is. Remarks are such things too.
//!
//! Invariants: each thing is written as it is found, so that memory does not grow with them.

use millrace_base::value::{Fields, Value, field};
use std::fmt::Display;
use std::io::{self, Write};

/// How what is found is told.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Format {
    #[default]
    Text,
    Json,
    Yaml,
}

pub struct Output<'a> {
    pub out: &'a mut dyn Write,
    pub talk: &'a mut dyn Write,
    pub format: Format,
    /// Reused for each value.
    buffer: String,
}

impl<'a> Output<'a> {
    pub fn new(out: &'a mut dyn Write, talk: &'a mut dyn Write, format: Format) -> Output<'a> {
        Output { out, talk, format, buffer: String::new() }
    }

    pub fn is_text(&self) -> bool {
        self.format == Format::Text
    }

    /// A line of text. Programs are told by [`Output::item`] instead.
    pub fn line(&mut self, line: impl Display) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// A thing for programs.
    pub fn item(&mut self, kind: &'static str, mut fields: Fields) -> io::Result<()> {
        fields.insert(0, field("kind", kind));
        self.value(&Value::Map(fields))
    }

    pub fn value(&mut self, value: &Value) -> io::Result<()> {
        self.buffer.clear();
        match self.format {
            Format::Text | Format::Json => {
                value.json(&mut self.buffer);
                self.buffer.push('\n');
            }
            Format::Yaml => value.yaml_item(&mut self.buffer),
        }
        self.out.write_all(self.buffer.as_bytes())
    }

    /// A line for people, or a thing for programs.
    pub fn tell(&mut self, kind: &'static str, fields: impl FnOnce() -> Fields, line: impl Display) -> io::Result<()> {
        if self.is_text() { self.line(line) } else { self.item(kind, fields()) }
    }

    /// A remark.
    pub fn note(&mut self, note: impl Display) -> io::Result<()> {
        if self.is_text() { writeln!(self.talk, "note: {note}") } else { self.item("note", vec![field("text", note.to_string())]) }
    }
}
