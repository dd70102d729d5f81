//! What every file keeps to: its length, its first line, its name, and words that do not belong in a repository.
//!
//! An exception stands in a list here, with its reason; one that nothing needs any more is a violation too.

use crate::Violation;
use crate::tree::Tree;

const LINES_MAX: usize = 800;

/// Longer files, and why. (path, reason)
const LONG: &[(&str, &str)] = &[];

/// Files that a program wrote, and which; neither long nor introduced by our measure. (path, program)
const GENERATED: &[(&str, &str)] = &[("engine/state/src/meta/generated.rs", "rust-protobuf")];

/// Words, put together so that this file is none of those that have them, and what is wrong with each.
const WORDS: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "an open end; do it, or write an issue"),
    (concat!("FIX", "ME"), "an open end; do it, or write an issue"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("DESIGN", ".md"), "a page that is not in the repository"),
    (concat!("STYLE", ".md"), "a page that is not in the repository"),
];

/// Files that need such a word, and why. (path, word, reason)
const WORDS_ALLOWED: &[(&str, &str, &str)] = &[];

/// Names that say nothing of what a file holds.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helpers", "misc", "impls"];

/// Folders with a README each, from when the first of them has one.
const TOP_FOLDERS: &[&str] = &["engine", "frontends", "raftlog", "tiering", "tools", "scripts", "packaging", "testdata"];

/// Crates whose decisions are pure or that the simulator runs, and the lint file that says what this forbids.
const PURE: &[&str] =
    &["engine/base", "engine/log", "engine/state", "engine/schema", "engine/shard", "raftlog", "frontends/edge", "frontends/kafka"];
const PURE_LINTS: &str = "engine/clippy.toml";

pub fn check(tree: &Tree) -> Vec<Violation> {
    check_with(tree, LONG, WORDS_ALLOWED)
}

fn check_with(tree: &Tree, long: &[(&str, &str)], words_allowed: &[(&str, &str, &str)]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (file, text) in &tree.files {
        check_words(file, text, words_allowed, &mut violations);
        if let Some((_, program)) = GENERATED.iter().find(|(path, _)| path == file) {
            check_generated(file, text, program, &mut violations);
        } else if let Some(stem) = file.strip_suffix(".rs") {
            check_rust(file, stem, text, long, &mut violations);
        }
    }
    for (file, _) in long {
        if tree.files.get(*file).is_none_or(|text| text.lines().count() <= LINES_MAX) {
            violations.push(Violation::new(file, "is not that long any more; take it off the list in tools/tidy/src/files.rs"));
        }
    }
    for (file, word, _) in words_allowed {
        if tree.files.get(*file).is_none_or(|text| !text.contains(word)) {
            violations.push(Violation::new(file, format!("has no {word} any more; take it off the list in tools/tidy/src/files.rs")));
        }
    }
    check_readmes(tree, &mut violations);
    check_lints(tree, &mut violations);
    violations
}

fn check_words(file: &str, text: &str, allowed: &[(&str, &str, &str)], violations: &mut Vec<Violation>) {
    for (word, why) in WORDS {
        if allowed.iter().any(|(path, allowed, _)| *path == file && allowed == word) {
            continue;
        }
        if let Some(line) = text.lines().position(|line| line.contains(word)) {
            violations.push(Violation::new(file, format!("line {} has {word:?}: {why}", line + 1)));
        }
    }
}

fn check_rust(file: &str, stem: &str, text: &str, long: &[(&str, &str)], violations: &mut Vec<Violation>) {
    let lines = text.lines().count();
    if lines > LINES_MAX && !long.iter().any(|(path, _)| *path == file) {
        violations.push(Violation::new(file, format!("has {lines} lines, more than {LINES_MAX}; look for the second noun in it")));
    }
    if !text.starts_with("//! ") {
        violations.push(Violation::new(file, "must begin with `//!` and what the file is"));
    }
    if let Some(name) = EMPTY_NAMES.iter().find(|name| stem.rsplit('/').next() == Some(name)) {
        violations.push(Violation::new(file, format!("{name} does not say what the file holds")));
    }
}

/// A file by hand cannot pass for a generated one: the program says so at the top of what it writes.
fn check_generated(file: &str, text: &str, program: &str, violations: &mut Vec<Violation>) {
    let says_so = text.lines().take(5).any(|line| line.starts_with("//") && line.contains("generated") && line.contains(program));
    if !says_so {
        violations.push(Violation::new(file, format!("does not say at its top that {program} generated it")));
    }
}

fn check_readmes(tree: &Tree, violations: &mut Vec<Violation>) {
    let exists = |folder: &str| tree.files.keys().any(|file| file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
    let has_readme = |folder: &str| tree.files.contains_key(&format!("{folder}/README.md"));
    if !TOP_FOLDERS.iter().any(|folder| has_readme(folder)) {
        return;
    }
    for folder in TOP_FOLDERS.iter().filter(|folder| exists(folder) && !has_readme(folder)) {
        violations.push(Violation::new(&format!("{folder}/README.md"), "every top folder has a README"));
    }
}

/// clippy reads the nearest lint file above a crate and no other, so each pure crate must find the same one.
fn check_lints(tree: &Tree, violations: &mut Vec<Violation>) {
    for folder in PURE.iter().filter(|folder| tree.files.contains_key(&format!("{folder}/Cargo.toml"))) {
        let mut above = Some(*folder);
        let mut nearest = None;
        while let (Some(place), None) = (above, nearest) {
            nearest = tree.files.get(&format!("{place}/clippy.toml"));
            above = place.rsplit_once('/').map(|(above, _)| above);
        }
        if nearest.is_none() || nearest != tree.files.get(PURE_LINTS) {
            violations.push(Violation::new(&format!("{folder}/clippy.toml"), format!("must be the same as {PURE_LINTS}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_planted(files: &[(&str, &str)], expected: &[&str]) {
        let violations = check(&Tree::of(files));
        let found: Vec<String> = violations.iter().map(|violation| format!("{}: {}", violation.file, violation.message)).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found:?} does not say {expected:?}");
        }
    }

    #[test]
    fn a_rust_file_is_short_introduced_and_named() {
        let long = format!("//! What it is.\n{}", "\n".repeat(LINES_MAX));
        check_planted(&[("a.rs", "//! What it is.\n")], &[]);
        check_planted(&[("a.rs", &long)], &["a.rs: has 801 lines"]);
        check_planted(&[("a.txt", &long)], &[]);
        check_planted(&[("a.rs", "fn main() {}\n")], &["must begin with `//!`"]);
        check_planted(&[("x/util.rs", "//! What it is.\n")], &["x/util.rs: util does not say"]);
        let tree = Tree::of(&[("a.rs", &long), ("b.rs", "//! Short.\n")]);
        assert_eq!(check_with(&tree, &[("a.rs", "a table")], &[]), Vec::new());
        assert_eq!(check_with(&tree, &[("a.rs", "a table"), ("b.rs", "a table"), ("c.rs", "a table")], &[]).len(), 2);
    }

    #[test]
    fn words_that_do_not_belong_are_found_by_line() {
        for (word, why) in WORDS {
            let text = format!("one\ntwo {word}x\n");
            check_planted(&[("docs/a.md", &text)], &[&format!("docs/a.md: line 2 has {word:?}: {why}")]);
            let tree = Tree::of(&[("a.md", &text)]);
            assert_eq!(check_with(&tree, &[], &[("a.md", word, "told")]), Vec::new());
        }
        let allowed = [("a.md", WORDS[0].0, "told")];
        assert_eq!(check_with(&Tree::of(&[("a.md", "")]), &[], &allowed).len(), 1);
    }

    #[test]
    fn a_generated_file_may_be_long_if_it_says_so() {
        let path = GENERATED[0].0;
        let body = "\n".repeat(2 * LINES_MAX);
        check_planted(&[(path, &format!("// This file is generated by rust-protobuf 3.7.2.\n{body}"))], &[]);
        check_planted(&[(path, &format!("//! By hand.\n{body}"))], &["does not say at its top"]);
        check_planted(&[("engine/state/src/generated.rs", &format!("//! Not listed.\n{body}"))], &["more than 800"]);
    }

    #[test]
    fn one_readme_asks_for_all() {
        check_planted(&[("engine/x.txt", ""), ("tools/x.txt", "")], &[]);
        check_planted(&[("engine/README.md", ""), ("tools/x.txt", "")], &["tools/README.md: every top folder"]);
        check_planted(&[("engine/README.md", ""), ("tools/README.md", "")], &[]);
    }

    #[test]
    fn a_pure_crate_finds_the_pure_lints() {
        let log = ("engine/log/Cargo.toml", "");
        let raft = ("raftlog/Cargo.toml", "");
        let lints = ("engine/clippy.toml", "x");
        check_planted(&[log, lints], &[]);
        check_planted(&[log], &["engine/log/clippy.toml: must be the same"]);
        check_planted(&[log, lints, ("engine/log/clippy.toml", "y")], &["engine/log/clippy.toml"]);
        check_planted(&[raft, lints], &["raftlog/clippy.toml"]);
        check_planted(&[raft, lints, ("raftlog/clippy.toml", "x")], &[]);
    }
}
