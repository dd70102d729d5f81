//! What a run found, as lines for a person or one JSON line for a script.
//!
//! Names carry their units. Both forms hold the same fields in the same order.

use millrace_ops::histogram::Histogram;
use std::fmt::Write;

pub struct Report {
    fields: Vec<(&'static str, Value)>,
}

enum Value {
    Count(u64),
    Figure(f64),
    Text(String),
}

impl Report {
    pub fn new(command: &str) -> Report {
        Report { fields: vec![("command", Value::Text(command.to_owned()))] }
    }

    pub fn count(mut self, name: &'static str, value: u64) -> Report {
        self.fields.push((name, Value::Count(value)));
        self
    }

    pub fn word(mut self, name: &'static str, value: String) -> Report {
        self.fields.push((name, Value::Text(value)));
        self
    }

    /// # Panics
    /// When the figure is not finite: JSON has no word for that.
    pub fn figure(mut self, name: &'static str, value: f64) -> Report {
        assert!(value.is_finite(), "{name} is {value}");
        self.fields.push((name, Value::Figure(value)));
        self
    }

    /// `work / per`, left out when there was none to divide by.
    pub fn ratio(self, name: &'static str, work: f64, per: f64) -> Report {
        if per > 0.0 { self.figure(name, work / per) } else { self }
    }

    pub fn latencies(self, latencies: &Histogram) -> Report {
        let ms = |share| latencies.quantile(share).as_secs_f64() * 1e3;
        self.count("samples", latencies.count())
            .figure("p50_ms", ms(0.5))
            .figure("p99_ms", ms(0.99))
            .figure("p999_ms", ms(0.999))
            .figure("max_ms", latencies.max().as_secs_f64() * 1e3)
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.fields {
            match value {
                Value::Count(value) => writeln!(out, "{name:<24} {value}"),
                Value::Figure(value) => writeln!(out, "{name:<24} {value:.4}"),
                Value::Text(value) => writeln!(out, "{name:<24} {value}"),
            }
            .expect("a string takes all that is written to it");
        }
        out
    }

    pub fn json(&self) -> String {
        let fields: Vec<String> = self.fields.iter().map(|(name, value)| format!("\"{name}\":{}", json_value(value))).collect();
        format!("{{{}}}\n", fields.join(","))
    }
}

fn json_value(value: &Value) -> String {
    match value {
        Value::Count(value) => value.to_string(),
        Value::Figure(value) => format!("{value:.6}"),
        Value::Text(value) => {
            let mut out = String::from("\"");
            for c in value.chars() {
                match c {
                    '"' | '\\' => out.extend(['\\', c]),
                    c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes all that is written to it"),
                    c => out.push(c),
                }
            }
            out.push('"');
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_line_of_json_holds_every_field() {
        let mut latencies = Histogram::new();
        latencies.record(Duration::from_millis(2));
        let report = Report::new("a \"b\"\t").count("n", 3).ratio("x", 1.0, 0.0).ratio("y", 1.0, 4.0).latencies(&latencies);
        let expected = "{\"command\":\"a \\\"b\\\"\\u0009\",\"n\":3,\"y\":0.250000,\"samples\":1,\"p50_ms\":2.000000,\"p99_ms\":2.000000,\"p999_ms\":2.000000,\"max_ms\":2.000000}\n";
        assert_eq!(report.json(), expected);
        assert_eq!(report.text().lines().count(), 8);
    }
}
