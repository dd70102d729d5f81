//! The settings file, and the settings that it gives.

use crate::meter;
use millrace::settings_file::parse;
use millrace_base::settings::Settings;

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let given = match meter::bounded(512 * input.len() + (64 << 10), || parse("node.yaml", text)) {
        Ok(given) => given,
        Err(failure) => return assert!(!failure.to_string().contains('\n'), "a failure is one line"),
    };
    let keys: std::collections::BTreeSet<&str> = given.iter().map(|given| given.key.as_str()).collect();
    assert_eq!(keys.len(), given.len(), "a key is given once");
    match Settings::new(given) {
        Ok(settings) => assert!(settings.entries().all(|entry| entry.value().is_none_or(|value| !value.is_empty()))),
        Err(error) => drop(error.to_string()),
    }
}
