//! Checks on the repository itself, beyond what compiler and lints see: arrows between crates, homes of packages, files and
//! words, the tests of the fault atlas, the fuzz targets.
//!
//! `cargo run -p millrace-tidy [ROOT]` prints each violation as `file: message` and exits with 1 if there is one. All text is read
//! into a `Tree` first; the checks are functions of that, so their tests plant what they must find.

mod arrows;
mod atlas;
mod files;
mod fuzz;
mod manifest;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use tree::Tree;

/// What is wrong with one file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Violation {
    pub file: String,
    pub message: String,
}

impl Violation {
    pub fn new(file: &str, message: impl Into<String>) -> Violation {
        Violation { file: file.to_owned(), message: message.into() }
    }
}

fn main() -> ExitCode {
    let tree = match root().and_then(|root| Tree::read(&root)) {
        Ok(tree) => tree,
        Err(message) => {
            eprintln!("tidy: {message}");
            return ExitCode::from(2);
        }
    };
    let violations = violations(&tree);
    for Violation { file, message } in &violations {
        println!("{file}: {message}");
    }
    eprintln!("tidy: {} files, {} violations", tree.files.len(), violations.len());
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// The repository: the argument, or two folders above this package's manifest, where cargo says it is.
fn root() -> Result<PathBuf, String> {
    if let Some(root) = std::env::args_os().nth(1) {
        return Ok(PathBuf::from(root));
    }
    match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(folder) => Ok(PathBuf::from(folder).join("../..")),
        None => Err("run it with `cargo run -p millrace-tidy`, or name the repository's folder".to_owned()),
    }
}

fn violations(tree: &Tree) -> Vec<Violation> {
    let mut violations = arrows::check(tree);
    violations.extend(files::check(tree));
    violations.extend(atlas::check(tree));
    violations.extend(fuzz::check(tree));
    violations.sort();
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_keeps_its_own_rules() {
        let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests")).join("../..");
        let tree = Tree::read(&root).expect("the repository is readable");
        assert!(tree.files.contains_key("tools/tidy/src/main.rs"), "the wrong folder was read");
        assert_eq!(violations(&tree), Vec::new());
    }
}
