//! The fuzz targets, which are in a workspace of their own and are built by hand alone: nothing else would notice that one is missing, or that
//! they run on other packages than the broker does.
//!
//! 1. Each name in the `targets!` of `tools/fuzz-bodies` has a file in `fuzz/fuzz_targets`, of just the lines that call its body, and a `[[bin]]` in
//!    `fuzz/Cargo.toml`; nothing else has.
//! 2. A package that stands in both lock files is there in the same versions. Whether `fuzz/Cargo.lock` is complete, cargo says in `scripts/check`.

use crate::Violation;
use crate::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};

const BODIES: &str = "tools/fuzz-bodies/src/lib.rs";
const MANIFEST: &str = "fuzz/Cargo.toml";
const FOLDER: &str = "fuzz/fuzz_targets/";
const LOCK: &str = "fuzz/Cargo.lock";
const LOCK_OF_ALL: &str = "Cargo.lock";

pub fn check(tree: &Tree) -> Vec<Violation> {
    let Some(bodies) = tree.files.get(BODIES) else { return Vec::new() };
    let mut violations = Vec::new();
    let names = names(bodies);
    if names.is_empty() {
        violations.push(Violation::new(BODIES, "has no list of targets that begins with `targets! {` and ends with `}`"));
    }
    check_files(tree, &names, &mut violations);
    check_manifest(tree, &names, &mut violations);
    check_locks(tree, &mut violations);
    violations
}

/// What stands in the call of the macro, a name a line.
fn names(bodies: &str) -> BTreeSet<&str> {
    let list = bodies.split("\ntargets! {\n").nth(1).and_then(|rest| rest.split_once("\n}"));
    list.into_iter().flat_map(|(list, _)| list.lines()).map(|line| line.trim().trim_end_matches(',')).collect()
}

fn target(name: &str) -> String {
    format!(
        "//! See `tools/fuzz-bodies/src/{name}.rs`.\n\n#![no_main]\n\n\
        libfuzzer_sys::fuzz_target!(|input: &[u8]| millrace_fuzz_bodies::{name}::run(input));\n"
    )
}

fn check_files(tree: &Tree, names: &BTreeSet<&str>, violations: &mut Vec<Violation>) {
    for name in names {
        let file = format!("{FOLDER}{name}.rs");
        match tree.files.get(&file) {
            None => violations.push(Violation::new(&file, "is missing: the body of that name is not fuzzed")),
            Some(text) if *text != target(name) => {
                violations.push(Violation::new(&file, format!("must be this and nothing else:\n{}", target(name))));
            }
            Some(_) => {}
        }
    }
    for file in tree.files.keys().filter(|file| file.starts_with(FOLDER)) {
        if !names.iter().any(|name| *file == format!("{FOLDER}{name}.rs")) {
            violations.push(Violation::new(file, format!("is of no target in {BODIES}")));
        }
    }
}

fn check_manifest(tree: &Tree, names: &BTreeSet<&str>, violations: &mut Vec<Violation>) {
    let manifest = tree.files.get(MANIFEST).map_or("", String::as_str);
    let mut found = BTreeSet::new();
    for bin in manifest.split("[[bin]]\n").skip(1) {
        let name = bin.strip_prefix("name = \"").and_then(|rest| rest.split_once('"')).map_or("", |(name, _)| name);
        let wanted = format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\ntest = false\ndoc = false\nbench = false\n");
        if bin.trim_end() != wanted.trim_end() {
            violations.push(Violation::new(MANIFEST, format!("a [[bin]] must be like this:\n{wanted}")));
        }
        if !found.insert(name) || !names.contains(name) {
            violations.push(Violation::new(MANIFEST, format!("has a [[bin]] {name:?} that is of no target, or a second one")));
        }
    }
    for name in names.iter().filter(|name| !found.contains(**name)) {
        violations.push(Violation::new(MANIFEST, format!("has no [[bin]] for target {name}")));
    }
}

/// Versions by package.
fn versions(lock: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]\n").skip(1) {
        let value = |key: &str| package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'));
        if let (Some(name), Some(version)) = (value("name"), value("version")) {
            versions.entry(name).or_default().insert(version);
        }
    }
    versions
}

fn check_locks(tree: &Tree, violations: &mut Vec<Violation>) {
    let of = |file: &str| tree.files.get(file).map(|lock| versions(lock)).unwrap_or_default();
    let of_all = of(LOCK_OF_ALL);
    for (package, versions) in of(LOCK) {
        let Some(wanted) = of_all.get(package) else { continue };
        for version in versions.difference(wanted) {
            let wanted: Vec<&str> = wanted.iter().copied().collect();
            let how = format!("cargo update --manifest-path {MANIFEST} -p {package}@{version} --precise {}", wanted[0]);
            violations
                .push(Violation::new(LOCK, format!("has {package} {version}, the broker is built with {}: {how}", wanted.join(", "))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "macro_rules! targets {\n}\n\ntargets! {\n    batch,\n    index,\n}\n";

    fn bin(name: &str) -> String {
        format!("\n[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\ntest = false\ndoc = false\nbench = false\n")
    }

    fn package(name: &str, version: &str) -> String {
        format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\n")
    }

    /// Each violation's file and the first line of what is wrong.
    fn found(change: impl FnOnce(&mut BTreeMap<String, String>)) -> Vec<String> {
        let mut tree = Tree::of(&[
            (BODIES, LIST),
            ("fuzz/fuzz_targets/batch.rs", &target("batch")),
            ("fuzz/fuzz_targets/index.rs", &target("index")),
            (MANIFEST, &format!("[workspace]\n{}{}", bin("batch"), bin("index"))),
            (LOCK_OF_ALL, &format!("version = 4\n\n{}{}", package("lz4", "1.0.0"), package("both", "1.1.0"))),
            (LOCK, &format!("version = 4\n\n{}{}", package("lz4", "1.0.0"), package("fuzzer", "0.1.0"))),
        ]);
        change(&mut tree.files);
        let line = |violation: &Violation| violation.message.lines().next().unwrap_or_default().to_owned();
        check(&tree).iter().map(|violation| format!("{}: {}", violation.file, line(violation))).collect()
    }

    #[test]
    fn each_body_has_its_target_and_each_target_its_body() {
        assert_eq!(found(|_| {}), Vec::<String>::new());
        let missing = "fuzz/fuzz_targets/index.rs: is missing: the body of that name is not fuzzed";
        assert_eq!(found(|files| drop(files.remove("fuzz/fuzz_targets/index.rs"))), [missing]);
        let other = "fuzz/fuzz_targets/index.rs: must be this and nothing else:";
        assert_eq!(found(|files| drop(files.insert("fuzz/fuzz_targets/index.rs".to_owned(), target("batch")))), [other]);
        let nobodys = "fuzz/fuzz_targets/segment.rs: is of no target in tools/fuzz-bodies/src/lib.rs";
        assert_eq!(found(|files| drop(files.insert("fuzz/fuzz_targets/segment.rs".to_owned(), target("segment")))), [nobodys]);
        let none = found(|files| drop(files.insert(BODIES.to_owned(), "targets![batch]".to_owned())));
        assert_eq!(none[0], "tools/fuzz-bodies/src/lib.rs: has no list of targets that begins with `targets! {` and ends with `}`");
    }

    #[test]
    fn each_target_is_built() {
        let lacks = found(|files| drop(files.insert(MANIFEST.to_owned(), bin("batch"))));
        assert_eq!(lacks, ["fuzz/Cargo.toml: has no [[bin]] for target index"]);
        let more = found(|files| files.get_mut(MANIFEST).unwrap().push_str(&bin("segment")));
        assert_eq!(more, ["fuzz/Cargo.toml: has a [[bin]] \"segment\" that is of no target, or a second one"]);
        let twice = found(|files| files.get_mut(MANIFEST).unwrap().push_str(&bin("batch")));
        assert_eq!(twice.len(), 1);
        let other = |files: &mut BTreeMap<String, String>| {
            let manifest = files.get_mut(MANIFEST).unwrap();
            *manifest = manifest.replace("fuzz_targets/index.rs", "fuzz_targets/batch.rs");
        };
        assert_eq!(found(other), ["fuzz/Cargo.toml: a [[bin]] must be like this:"]);
    }

    #[test]
    fn what_is_fuzzed_is_what_the_broker_is_built_with() {
        let newer = found(|files| drop(files.insert(LOCK.to_owned(), package("both", "1.2.0"))));
        let how = "cargo update --manifest-path fuzz/Cargo.toml -p both@1.2.0 --precise 1.1.0";
        assert_eq!(newer, [format!("fuzz/Cargo.lock: has both 1.2.0, the broker is built with 1.1.0: {how}")]);
    }
}
