//! Where log lines go: standard error, one line each, `LEVEL time text key=value ...`.
//!
//! The time is UTC with milliseconds. A value with a space, a quote or a control character in it is quoted, control characters in the
//! text are escaped: what a client sent cannot begin a line of its own. Each line is one write, so lines of several threads do not mix.
//!
//! Knows nothing of who logs what.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};

struct Sink;

static SINK: Sink = Sink;

/// Takes every line of `level` and above from now on. Later calls change the level alone.
pub fn install(level: &str) {
    log::set_max_level(level.parse().unwrap_or(LevelFilter::Info));
    // Refused only where a sink is in place already, which is this one.
    let _ = log::set_logger(&SINK);
}

/// One line whatever the level: what everybody who starts a node waits for.
pub fn always(text: &str, pairs: &[(&str, &str)]) {
    SINK.write(&Record::builder().level(log::Level::Info).key_values(&pairs).args(format_args!("{text}")).build());
}

impl Sink {
    fn write(&self, record: &Record<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // There is nobody to tell that standard error is gone.
        let _ = std::io::stderr().lock().write_all(line(now, record).as_bytes());
    }
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries tell of their own course, at info, is for who looks into them.
        let level = match metadata.level() {
            Level::Info if !is_ours(metadata.target()) => Level::Debug,
            level => level,
        };
        level <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.write(record);
        }
    }

    fn flush(&self) {}
}

/// Whether a crate of this project says it.
fn is_ours(target: &str) -> bool {
    target.starts_with("millrace") || target.is_empty()
}

fn line(now: Duration, record: &Record<'_>) -> String {
    let mut pairs = Pairs(String::new());
    // `Pairs` fails on no pair.
    let _ = record.key_values().visit(&mut pairs);
    format!("{:<5} {} {}{}\n", record.level(), utc(now), escaped(&record.args().to_string()), pairs.0)
}

struct Pairs(String);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let text = value.to_string();
        let plain = !text.is_empty() && !text.contains(|c: char| c.is_control() || c == ' ' || c == '"');
        let written = if plain { write!(self.0, " {key}={text}") } else { write!(self.0, " {key}={text:?}") };
        written.map_err(|_| Error::msg("a String takes all text"))
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped
}

/// `2026-11-23T22:25:00.123Z` from the time since 1970. Years of 365 days with their leap days, counted from March so that those come last.
fn utc(since_1970: Duration) -> String {
    const DAYS_TO_1970_FROM_MARCH_0: u64 = 719_468;
    const ERA_DAYS: u64 = 146_097;
    let seconds = since_1970.as_secs();
    let days = seconds / 86_400 + DAYS_TO_1970_FROM_MARCH_0;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second, ms) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60, since_1970.subsec_millis());
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let check = |ms: u64, expected: &str| assert_eq!(utc(Duration::from_millis(ms)), expected);
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_399_999, "2000-02-28T23:59:59.999Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(1_709_251_199_001, "2024-02-29T23:59:59.001Z");
        check(1_735_689_599_000, "2024-12-31T23:59:59.000Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn a_line_stays_one_line_whatever_is_in_it() {
        let pairs = [("client", "a b"), ("size", "3"), ("name", "x\ny"), ("empty", "")];
        let mut record = Record::builder();
        record.level(log::Level::Warn).key_values(&pairs);
        let line = line(Duration::ZERO, &record.args(format_args!("closed\nINFO \"é\"")).build());
        let expected = "WARN  1970-01-01T00:00:00.000Z closed\\nINFO \"é\" client=\"a b\" size=3 name=\"x\\ny\" empty=\"\"\n";
        assert_eq!(line, expected);
    }
}
