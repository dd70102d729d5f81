//! Rows: aligned columns for people, one object each for programs.

use crate::output::Output;
use millrace_base::value::{Fields, Value};
use std::borrow::Cow;
use std::io;

/// Rows under a heading; the last column is not padded. Nothing is `-`.
pub struct Table {
    kind: &'static str,
    heading: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// `kind`: what one row is.
    pub fn new(kind: &'static str, heading: &[&'static str]) -> Table {
        Table { kind, heading: heading.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<Value>) {
        assert_eq!(cells.len(), self.heading.len());
        self.rows.push(cells);
    }

    pub fn print(self, output: &mut Output<'_>) -> io::Result<()> {
        if output.is_text() { self.print_text(output) } else { self.print_items(output) }
    }

    fn print_items(self, output: &mut Output<'_>) -> io::Result<()> {
        let names: Vec<String> = self.heading.iter().map(|name| name.replace(' ', "_")).collect();
        for row in self.rows {
            let fields: Fields = names.iter().map(|name| Cow::Owned(name.clone())).zip(row).collect();
            output.item(self.kind, fields)?;
        }
        Ok(())
    }

    fn print_text(self, output: &mut Output<'_>) -> io::Result<()> {
        let heading = self.heading.iter().map(|cell| (*cell).to_owned()).collect();
        let rows: Vec<Vec<String>> = std::iter::once(heading).chain(self.rows.iter().map(|row| row.iter().map(text).collect())).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.heading.len()).map(width).collect();
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            output.line(line.trim_end())?;
        }
        Ok(())
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Text(text) => text.clone(),
        other => {
            let mut out = String::new();
            other.json(&mut out);
            out
        }
    }
}
