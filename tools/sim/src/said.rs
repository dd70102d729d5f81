//! What the broker writes into its log, for tests that demand it: a person has nothing else to go by.
//!
//! Lines are kept by thread, so that tests that run beside each other do not hear each other.

use std::cell::RefCell;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

struct Sink;

impl log::Log for Sink {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.push(format!("{} {}", record.level(), record.args()));
            }
        });
    }

    fn flush(&self) {}
}

static SINK: Sink = Sink;

/// Keeps what is said at level info and above on this thread from now on; gives what was said since this was called last.
pub fn listen() -> Vec<String> {
    if log::set_logger(&SINK).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    LINES.replace(Some(Vec::new())).unwrap_or_default()
}
