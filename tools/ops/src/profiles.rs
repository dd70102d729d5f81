//! The file of profiles: settings for each cluster that a person works with, under a name.
//!
//! ```yaml
//! current: test
//! profiles:
//!   test:
//!     brokers: 127.0.0.1:9092
//!   production:
//!     brokers: [a.example.org:9092, b.example.org:9092]
//!     request.timeout.ms: 5000
//! ```
//!
//! 1. It stands at `$MILLRACE_PROFILES`, else `$XDG_CONFIG_HOME/millrace/profiles.yaml`, else `~/.config/millrace/profiles.yaml`. Only a file that was named must be there.
//! 2. `--profile` or `$MILLRACE_PROFILE` chooses one, else `current` does, else none is in use.
//! 3. Values are scalars or lists of scalars, which are joined by commas; anything else is refused with its line.
//!
//! Invariants: a profile, and a key in it, is given once.

use std::io::{ErrorKind, Read};

use millrace_base::settings::nearest;
use saphyr_parser::{Event, Parser, ScanError, Span};

use crate::failure::{Failure, Kind, Outcome};
use crate::settings::{self, Given};

const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Profiles {
    /// Where they were read from; empty when there is no file.
    pub path: String,
    pub current: Option<String>,
    /// In the file's order.
    pub profiles: Vec<Profile>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    pub name: String,
    pub given: Vec<Given>,
}

/// Reads the file that `variable` (an environment's) points to.
///
/// # Errors
/// It cannot be read, or is no such file.
pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Outcome<Profiles> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let named = set("MILLRACE_PROFILES");
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| format!("{home}/.config")));
    let Some(path) = named.clone().or_else(|| folder.map(|folder| format!("{folder}/millrace/profiles.yaml"))) else {
        return Ok(Profiles::default());
    };
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => return Ok(Profiles::default()),
        Err(error) => return Err(Failure::usage(format!("cannot open the file of profiles {path}: {error}"))),
    };
    let mut text = String::new();
    let length = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let length = length.map_err(|error| Failure::usage(format!("cannot read the file of profiles {path}: {error}")))?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(
            Failure::usage(format!("the file of profiles {path} is larger than {FILE_BYTES_MAX} bytes")).with_hint("is it the right file?")
        );
    }
    parse(&path, &text)
}

/// The profiles in `text`, which was read from `path`.
///
/// # Errors
/// It is no file of profiles.
pub fn parse(path: &str, text: &str) -> Outcome<Profiles> {
    Reader { path, events: Parser::new_from_str(text) }.file()
}

impl Profiles {
    /// What the profile in use says: `asked` for by name, or the current one.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn in_use(&self, asked: Option<&str>) -> Outcome<Option<&Profile>> {
        let Some(name) = asked.or(self.current.as_deref()) else { return Ok(None) };
        match self.profiles.iter().find(|profile| profile.name == name) {
            Some(profile) => Ok(Some(profile)),
            None if self.path.is_empty() => Err(Failure::new(Kind::NotFound, format!("there is no profile {name:?}: no file of profiles"))
                .with_hint("`millrace topic --help` says where it is looked for")),
            None => {
                let names = self.profiles.iter().map(|profile| profile.name.clone());
                Err(Failure::new(Kind::NotFound, format!("there is no profile {name:?} in {}", self.path)).with_hint(
                    match nearest(name, names) {
                        Some(nearest) => format!("did you mean {nearest}?"),
                        None => "add it there".to_owned(),
                    },
                ))
            }
        }
    }
}

struct Reader<'a, E> {
    path: &'a str,
    events: E,
}

const SHAPE: &str = "write `profiles:`, under it a name, under that `setting: value`";

impl<'a, E: Iterator<Item = Result<(Event<'a>, Span), ScanError>>> Reader<'a, E> {
    fn file(mut self) -> Outcome<Profiles> {
        let mut profiles = Profiles { path: self.path.to_owned(), ..Profiles::default() };
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(profiles),
                Event::Scalar(text, _, 0, None) if text.is_empty() => {}
                Event::MappingStart(0, None) => {
                    while let Some((key, span)) = self.key()? {
                        match key.as_str() {
                            "current" => profiles.current = Some(self.value("current")?).filter(|name| !name.is_empty()),
                            "profiles" => self.profiles(&mut profiles.profiles)?,
                            other => return Err(self.refuse(span, &format!("{other:?} is neither `current` nor `profiles`"), SHAPE)),
                        }
                    }
                }
                _ => return Err(self.refuse(span, "not a file of profiles", SHAPE)),
            }
        }
    }

    fn profiles(&mut self, profiles: &mut Vec<Profile>) -> Outcome<()> {
        self.mapping("profiles")?;
        while let Some((name, span)) = self.key()? {
            if profiles.iter().any(|profile| profile.name == name) {
                return Err(self.refuse(span, &format!("profile {name:?} for the second time"), "keep one of the two"));
            }
            let given = self.profile(&name)?;
            profiles.push(Profile { name, given });
        }
        Ok(())
    }

    fn profile(&mut self, name: &str) -> Outcome<Vec<Given>> {
        self.mapping(name)?;
        let mut given: Vec<Given> = Vec::new();
        while let Some((key, span)) = self.key()? {
            if settings::row(&key).is_none() {
                return Err(self.refuse(span, &format!("unknown setting {key:?}"), "-X list shows all"));
            }
            if given.iter().any(|one| one.key == key) {
                return Err(self.refuse(span, &format!("{key} for the second time"), "keep one of the lines"));
            }
            let value = self.value(&key)?;
            given.push(Given { key, value, from: format!("profile {name}, {} line {}", self.path, span.start.line()) });
        }
        Ok(given)
    }

    fn mapping(&mut self, key: &str) -> Outcome<()> {
        match self.next()? {
            (Event::MappingStart(0, None), _) => Ok(()),
            (_, span) => Err(self.refuse(span, &format!("nothing that can stand under {key}"), SHAPE)),
        }
    }

    /// The next key of a mapping; `None` at its end.
    fn key(&mut self) -> Outcome<Option<(String, Span)>> {
        match self.next()? {
            (Event::MappingEnd, _) => Ok(None),
            (Event::Scalar(text, _, 0, None), span) => Ok(Some((text.into_owned(), span))),
            (_, span) => Err(self.refuse(span, "not a name", SHAPE)),
        }
    }

    fn value(&mut self, key: &str) -> Outcome<String> {
        let (event, span) = self.next()?;
        match event {
            Event::Scalar(text, _, 0, None) => Ok(text.into_owned()),
            Event::SequenceStart(0, None) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => return Ok(items.join(",")),
                        (Event::Scalar(text, _, 0, None), _) => items.push(text.into_owned()),
                        (_, span) => {
                            return Err(self.refuse(span, &format!("something other than plain items in the list of {key}"), SHAPE));
                        }
                    }
                }
            }
            _ => Err(self.refuse(span, &format!("{key} has no plain value"), SHAPE)),
        }
    }

    fn next(&mut self) -> Outcome<(Event<'a>, Span)> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Failure::usage(format!("{} line {}: not YAML: {}", self.path, error.marker().line(), error.info()))),
            None => Err(Failure::usage(format!("{}: ends in the middle", self.path))),
        }
    }

    fn refuse(&self, span: Span, what: &str, hint: &str) -> Failure {
        Failure::usage(format!("{} line {}: {what}", self.path, span.start.line())).with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "current: test\nprofiles:\n  test:\n    brokers: [a:1, b:2]\n  production:\n    client.id: me\n";

    fn refused(text: &str, part: &str) {
        let failure = parse("f", text).expect_err("must be refused").to_string();
        assert!(failure.contains(part) && !failure.contains('\n'), "{failure:?} does not say {part:?}");
    }

    #[test]
    fn the_profile_in_use_is_the_one_asked_for_or_the_current_one() {
        let profiles = parse("f", FILE).expect("profiles");
        let values = |asked| {
            let profile = profiles.in_use(asked).expect("there is one").expect("one is in use");
            profile.given.iter().map(|one| format!("{}={}", one.key, one.value)).collect::<Vec<_>>()
        };
        assert_eq!(values(None), ["brokers=a:1,b:2"]);
        assert_eq!(values(Some("production")), ["client.id=me"]);
        let failure = profiles.in_use(Some("tets")).expect_err("there is none");
        assert_eq!((failure.kind, failure.to_string().as_str()), (Kind::NotFound, "there is no profile \"tets\" in f; did you mean test?"));
        assert_eq!(Profiles::default().in_use(None), Ok(None));
        assert_eq!(parse("f", "# nothing\n").expect("empty").in_use(None), Ok(None));
    }

    #[test]
    fn what_is_no_file_of_profiles_is_refused_with_its_line() {
        refused("a: 1\n", "f line 1: \"a\" is neither");
        refused("profiles:\n  x: 1\n", "f line 2: nothing that can stand under x");
        refused("profiles:\n  x:\n    broker: a\n", "f line 3: unknown setting \"broker\"");
        refused("profiles:\n  x:\n    brokers: a\n    brokers: b\n", "f line 4: brokers for the second time");
        refused("profiles: {x: {}, x: {}}\n", "for the second time");
        refused("profiles:\n  x:\n    brokers: {a: b}\n", "no plain value");
        refused("- a\n", "not a file of profiles");
        refused("current: \"x\n", "not YAML");
    }

    #[test]
    fn a_file_that_was_named_must_be_there_and_the_usual_one_need_not() {
        let variable = |name: &'static str, value: &'static str| move |asked: &str| (asked == name).then(|| value.to_owned());
        assert_eq!(read(&variable("HOME", "/nowhere")), Ok(Profiles::default()));
        assert_eq!(read(&variable("OTHER", "")), Ok(Profiles::default()));
        let failure = read(&variable("MILLRACE_PROFILES", "/nowhere/p.yaml")).expect_err("named and not there");
        assert!(failure.to_string().contains("/nowhere/p.yaml"));
    }
}
