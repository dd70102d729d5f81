//! The settings file: flat YAML, one `key: value` a line.
//!
//! 1. One mapping in one document. A value is a scalar, taken as the text that stands there, or a list of scalars, joined by commas.
//! 2. What YAML has beyond that (nested mappings, anchors, tags, a second document) is refused with its line: no setting has use for it.
//!
//! The parser's events are read one after the other and no tree is built, so nesting costs nothing before it is refused.
//!
//! Invariants: a key is given once.
//! Knows nothing of which settings exist.

use std::collections::HashSet;
use std::io::Read;

use millrace_base::settings::{Given, Source};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use crate::failure::Failure;

const FILE_BYTES_MAX: u64 = 1 << 20;

/// The settings in the file at `path`.
pub fn read(path: &str) -> Result<Vec<Given>, Failure> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| Failure::Usage(format!("cannot open settings file {path}: {error}")))?;
    let length = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let length = length.map_err(|error| Failure::Usage(format!("cannot read settings file {path}: {error}")))?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(Failure::Usage(format!("settings file {path} is larger than {FILE_BYTES_MAX} bytes; is it the right file?")));
    }
    parse(path, &text)
}

/// The settings in `text`, which was read from `path`.
pub fn parse(path: &str, text: &str) -> Result<Vec<Given>, Failure> {
    Reader { path, events: Parser::new_from_str(text), given: Vec::new(), keys: HashSet::new() }.read()
}

struct Reader<'a, E> {
    path: &'a str,
    events: E,
    given: Vec<Given>,
    keys: HashSet<String>,
}

impl<'a, E: Iterator<Item = Result<(Event<'a>, Span), ScanError>>> Reader<'a, E> {
    fn read(mut self) -> Result<Vec<Given>, Failure> {
        let mut documents = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) if documents == 0 => documents += 1,
                Event::DocumentStart(_) => return Err(self.refuse(span, "a second document; a settings file has one")),
                Event::StreamEnd => return Ok(self.given),
                Event::MappingStart(_, None) => self.mapping()?,
                // A document of comments only is an empty scalar.
                Event::Scalar(text, ScalarStyle::Plain, 0, None) if is_null(&text) => {}
                Event::MappingStart(_, Some(_))
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingEnd
                | Event::Alias(_) => {
                    return Err(self.refuse(span, "not a setting; write one `key: value` a line"));
                }
            }
        }
    }

    /// The rest of the mapping, its end included.
    fn mapping(&mut self) -> Result<(), Failure> {
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(()),
                Event::Scalar(text, _, 0, None) => text.into_owned(),
                _ => return Err(self.refuse(span, "not the name of a setting; write one `key: value` a line")),
            };
            if !self.keys.insert(key.clone()) {
                return Err(self.refuse(span, &format!("{key} for the second time; keep one of the lines")));
            }
            let value = self.value(&key)?;
            let source = Source::File { path: self.path.to_owned(), line: span.start.line() };
            self.given.push(Given { key, value, source });
        }
    }

    fn value(&mut self, key: &str) -> Result<String, Failure> {
        let (event, span) = self.next()?;
        match event {
            Event::Scalar(text, style, 0, None) => Ok(scalar(&text, style)),
            Event::SequenceStart(0, None) => self.list(key),
            Event::MappingStart(..) => {
                Err(self.refuse(span, &format!("a mapping under {key}; write the full dotted name, `{key}.xyz: value`")))
            }
            _ => Err(self.refuse(span, &format!("an anchor, alias or tag at {key}; write the value itself"))),
        }
    }

    /// The rest of a list, its end included.
    fn list(&mut self, key: &str) -> Result<String, Failure> {
        let mut items: Vec<String> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::SequenceEnd => return Ok(items.join(",")),
                Event::Scalar(text, style, 0, None) if !text.contains(',') => items.push(scalar(&text, style)),
                Event::Scalar(_, _, 0, None) => {
                    return Err(self.refuse(span, &format!("a comma inside an item of {key}; make it two items")));
                }
                _ => return Err(self.refuse(span, &format!("something other than plain items in the list of {key}"))),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Failure> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Failure::Usage(format!("{} line {}: not YAML: {}", self.path, error.marker().line(), error.info()))),
            None => Err(Failure::Usage(format!("{}: ends in the middle", self.path))),
        }
    }

    fn refuse(&self, span: Span, what: &str) -> Failure {
        Failure::Usage(format!("{} line {}: {what}", self.path, span.start.line()))
    }
}

fn scalar(text: &str, style: ScalarStyle) -> String {
    if style == ScalarStyle::Plain && is_null(text) { String::new() } else { text.to_owned() }
}

/// `key:` and `key: null` take an optional setting back to absent.
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null")
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::settings::{Settings, TABLE, sample};

    fn check(text: &str, expected: &str) {
        let given = parse("f", text).expect("a settings file");
        let lines: Vec<String> = given.iter().map(|given| format!("{}={} {}", given.key, given.value, given.source)).collect();
        assert_eq!(lines.join("; "), expected, "{text:?}");
    }

    fn refused(text: &str, part: &str) {
        let failure = parse("f", text).expect_err("a file that must be refused").to_string();
        assert!(failure.contains(part) && !failure.contains('\n'), "{failure:?} does not say {part:?}");
    }

    #[test]
    fn scalars_keep_their_text_and_lists_are_joined() {
        check("", "");
        check("# nothing\n", "");
        check("num.partitions: 3\n\nbroker.rack: \"007\" # why\n", "num.partitions=3 f line 1; broker.rack=007 f line 3");
        check("listeners: PLAINTEXT://[::1]:9092", "listeners=PLAINTEXT://[::1]:9092 f line 1");
        check("---\nlog.dirs:\n  - /a\n  - /b\nx: [1, 2]\n", "log.dirs=/a,/b f line 2; x=1,2 f line 5");
        check("a:\nb: ~\nc: \"null\"\nd: -1\n", "a= f line 1; b= f line 2; c=null f line 3; d=-1 f line 4");
    }

    #[test]
    fn what_is_not_flat_is_refused_with_its_line() {
        refused("a: 1\nnum:\n  partitions: 3\n", "f line 3: a mapping under num; write the full dotted name");
        refused("a: {b: 1}", "f line 1: a mapping under a");
        refused("a: [[1]]", "in the list of a");
        refused("a: ['x,y']", "a comma inside an item of a");
        refused("a: 1\na: 2\n", "f line 2: a for the second time");
        refused("a: &x 1\nb: *x\n", "f line 1: an anchor");
        refused("a: 1\n---\nb: 1\n", "a second document");
        refused("just text", "f line 1: not a setting");
        refused("- a\n", "f line 1: not a setting");
        refused("[a]: 1\n", "f line 1: not the name of a setting");
        refused("a: \"x\n", "not YAML");
        refused(&format!("a: {}", "[".repeat(100_000)), "recursion limit");
    }

    #[test]
    fn the_sample_file_without_its_comments_is_the_defaults() {
        let text = sample();
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(lines.len(), TABLE.len());
        let settings = Settings::new(parse("f", &lines.join("\n")).expect("the sample is YAML")).expect("the sample is allowed");
        let defaults = Settings::default();
        for (entry, default) in settings.entries().zip(defaults.entries()) {
            assert_eq!(entry.value(), default.value(), "{}", entry.setting.name);
        }
        assert_eq!(parse("f", &text), Ok(Vec::new()));
    }

    #[test]
    fn the_sample_in_testdata_is_what_the_table_says() {
        let written = include_str!("../../../testdata/settings/sample.yaml");
        assert!(written == sample(), "write it anew: millrace settings --sample > testdata/settings/sample.yaml");
    }

    #[test]
    fn every_spelling_of_a_settings_file_is_understood() {
        let given = parse("node.yaml", include_str!("../../../testdata/settings/node.yaml")).expect("a settings file");
        let settings = Settings::new(given).expect("allowed settings");
        assert_eq!((settings.node_id, settings.broker_rack.as_deref(), &settings.cluster_id), (3, Some("rack-a"), &None));
        assert_eq!(settings.log_dirs, ["/var/lib/millrace/a", "/var/lib/millrace/b"]);
        assert_eq!((settings.log_segment_bytes, settings.auto_create_topics_enable), (64 << 20, false));
        let listeners = millrace_edge::listener::listeners(&settings).expect("allowed listeners");
        let shown: Vec<String> = listeners.iter().map(|l| format!("{} {} {}", l.name, l.bind, l.advertised)).collect();
        assert_eq!(shown, ["INTERNAL 127.0.0.1:9093 127.0.0.1:9093", "EXTERNAL [::]:9092 broker-3.example.org:9092"]);
    }
}
