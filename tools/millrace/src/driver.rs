//! Which driver serves the shards of this node.
//!
//! 1. The setting `io.driver` names one, or leaves it to what the host allows.
//! 2. Whether it allows a ring is tried once, before any shard is made; a refusal is told with its remedy.
//!
//! Knows nothing of shards.

use millrace::failure::Failure;
use millrace_io::uring::{self, Config, SetupError, UringDriver};
use millrace_io::{Driver, PortableDriver};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Uring,
    Portable,
}

/// The driver that the setting asks for.
///
/// # Errors
/// There is no ring, and the setting takes nothing else, or something is short that any driver needs.
pub fn choose(setting: &str) -> Result<Kind, Failure> {
    if setting == "portable" {
        return Ok(Kind::Portable);
    }
    match uring::check() {
        Ok(()) => Ok(Kind::Uring),
        Err(refusal) if setting == "auto" && refusal.is_refusal() => {
            log::warn!(
                "{refusal}; until then the portable driver serves, which keeps as much and is slower (io.driver=portable takes it untold)"
            );
            Ok(Kind::Portable)
        }
        Err(why) => Err(failure(&why)),
    }
}

fn failure(why: &SetupError) -> Failure {
    match why.is_refusal() {
        true => Failure::Run(format!("{why}; or start with io.driver=auto, which does without and is slower")),
        false => Failure::Run(why.to_string()),
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Uring => "uring",
            Kind::Portable => "portable",
        }
    }

    /// A driver of the calling thread.
    ///
    /// # Errors
    /// What is short or missing, with the remedy in its text.
    pub fn driver(self) -> Result<Box<dyn Driver>, String> {
        match self {
            Kind::Uring => Ok(Box::new(UringDriver::new(Config::default()).map_err(|error| error.to_string())?)),
            Kind::Portable => Ok(Box::new(PortableDriver::new().map_err(|error| format!("making an epoll: {error}"))?)),
        }
    }
}
