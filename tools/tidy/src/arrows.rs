//! Which crate may depend on which, and where a package from outside may be named.
//!
//! 1. A crate's own packages are in its row of `ARROWS`; `engine/base` is open to all. Dev and build dependencies count as well.
//! 2. A package from outside stands in the workspace's table with a comment `# home, home: why`. A home is a crate's folder or something in
//!    it, `folder/*`, or `all`; the first word of each counts. No other crate names the package.
//! 3. The table in `ARCHITECTURE.md` is this one, without the crates that are not there yet.
//! 4. A crate is called `millrace-<folder>`, and takes the workspace's lints; only `engine/io`, the home of `unsafe`, has its own.
//!
//! Knows nothing of versions: those stand in the workspace's table alone.

use crate::Violation;
use crate::manifest::{Dependency, dependencies, lines};
use crate::tree::Tree;
use std::collections::BTreeMap;

/// What a crate may depend on.
enum To {
    Only(&'static [&'static str]),
    Anything,
}

/// By folder.
const ARROWS: &[(&str, To)] = &[
    ("engine/base", To::Only(&[])),
    ("engine/io", To::Only(&[])),
    ("engine/log", To::Only(&["engine/io"])),
    ("engine/state", To::Only(&[])),
    ("engine/schema", To::Only(&[])),
    ("engine/shard", To::Only(&["engine/io", "engine/log", "engine/state", "raftlog"])),
    ("raftlog", To::Only(&[])),
    ("tiering/store", To::Only(&["engine/io"])),
    ("tiering/archive", To::Only(&["tiering/store", "engine/log", "engine/shard", "engine/schema"])),
    ("tiering/iceberg", To::Only(&["tiering/store", "engine/log", "engine/shard", "engine/schema"])),
    ("frontends/edge", To::Only(&["engine/shard"])),
    ("frontends/http", To::Only(&[])),
    ("frontends/kafka", To::Only(&["frontends/edge", "engine/shard", "engine/io"])),
    ("frontends/proxy", To::Only(&["frontends/http", "frontends/edge", "engine/shard", "engine/schema"])),
    ("frontends/registry", To::Only(&["frontends/http", "frontends/edge", "engine/shard", "engine/schema"])),
    ("frontends/admin", To::Only(&["frontends/http", "engine/shard"])),
    ("frontends/transform", To::Only(&["frontends/http", "frontends/edge", "engine/shard", "engine/schema"])),
    ("tools/ops", To::Only(&[])),
    ("tools/inspect", To::Only(&["engine/log", "engine/io", "engine/state", "tiering/archive"])),
    ("tools/sim", To::Anything),
    ("tools/millrace", To::Anything),
    ("tools/bench", To::Anything),
    ("tools/faultfs", To::Only(&[])),
    ("tools/fuzz-bodies", To::Anything),
    ("fuzz", To::Only(&["tools/fuzz-bodies"])),
    ("tools/tidy", To::Only(&[])),
];

/// Where people read the arrows.
const PAGE: &str = "ARCHITECTURE.md";

/// Open to every crate.
const BASE: &str = "engine/base";

/// The one crate with lints of its own.
const UNSAFE_HOME: &str = "engine/io";

pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    let empty = String::new();
    let homes = homes(tree.files.get("Cargo.toml").unwrap_or(&empty), &mut violations);
    for (file, manifest) in &tree.files {
        let Some(folder) = file.strip_suffix("/Cargo.toml") else { continue };
        check_package(file, folder, manifest, &mut violations);
        match ARROWS.iter().find(|(from, _)| *from == folder) {
            Some((_, to)) => {
                for dependency in dependencies(manifest) {
                    check_dependency(file, folder, to, &dependency, &homes, &mut violations);
                }
            }
            None => violations.push(Violation::new(file, "no row in the table of arrows (tools/tidy/src/arrows.rs)")),
        }
    }
    check_page(tree, &mut violations);
    violations
}

fn check_page(tree: &Tree, violations: &mut Vec<Violation>) {
    let Some(page) = tree.files.get(PAGE) else { return };
    let is_there = |folder: &str| tree.files.contains_key(&format!("{folder}/Cargo.toml"));
    let mut rows = page_rows(page);
    for (from, to) in ARROWS.iter().filter(|(from, _)| is_there(from)) {
        let expected = match to {
            To::Anything => "anything".to_owned(),
            To::Only(folders) => folders.iter().copied().filter(|to| is_there(to)).collect::<Vec<_>>().join(", "),
        };
        let expected = if expected.is_empty() { "-" } else { &expected };
        if rows.remove(from) != Some(expected) {
            violations.push(Violation::new(PAGE, format!("the table of arrows must say: {from} | {expected}")));
        }
    }
    violations.extend(rows.keys().map(|from| Violation::new(PAGE, format!("the table of arrows has {from}, which is not there"))));
}

/// The page's table: what a crate's row says, by folder.
fn page_rows(page: &str) -> BTreeMap<&str, &str> {
    let table = page.lines().skip_while(|line| *line != "| from | to |").skip(2).take_while(|line| line.starts_with('|'));
    let cells = table.filter_map(|line| line.trim_matches('|').split_once('|'));
    cells.flat_map(|(from, to)| from.split(',').map(move |from| (from.trim(), to.trim()))).collect()
}

/// What a crate in `folder` is called. The binary bears the system's name.
fn package_name(folder: &str) -> String {
    match folder.rsplit('/').next() {
        Some("millrace") | None => "millrace".to_owned(),
        Some(last) => format!("millrace-{last}"),
    }
}

fn check_package(file: &str, folder: &str, manifest: &str, violations: &mut Vec<Violation>) {
    let lines = lines(manifest);
    let value = |section: &str, key: &str| lines.iter().find(|line| line.section == section && line.key == key).map(|line| line.value);
    let expected = package_name(folder);
    if value("package", "name").map(|name| name.trim_matches('"')) != Some(expected.as_str()) {
        violations.push(Violation::new(file, format!("the package must be called {expected}")));
    }
    let takes_lints = value("lints", "workspace") == Some("true") || value("", "lints.workspace") == Some("true");
    if folder != UNSAFE_HOME && !takes_lints {
        violations.push(Violation::new(file, format!("must take the workspace's lints, which forbid unsafe code outside {UNSAFE_HOME}")));
    }
}

fn check_dependency(file: &str, folder: &str, to: &To, dependency: &Dependency, homes: &[Home], violations: &mut Vec<Violation>) {
    let package = &dependency.package;
    let mut violate = |message: String| violations.push(Violation::new(file, message));
    if !dependency.in_workspace {
        violate(format!("{package} must take its version from the workspace's table ({package}.workspace = true)"));
    }
    if package == "millrace" || package.starts_with("millrace-") {
        let allowed = match to {
            To::Anything => true,
            To::Only(folders) => folders.iter().chain([&BASE]).any(|to| package_name(to) == *package),
        };
        if !allowed {
            violate(format!("{folder} must not depend on {package}"));
        }
        return;
    }
    match homes.iter().find(|home| home.package == *package) {
        Some(home) if home.folders.iter().any(|home| is_home(home, folder)) => {}
        Some(home) => violate(format!("{package} is at home in {} alone", home.folders.join(", "))),
        None => violate(format!("{package} has no line with a home in the workspace's table")),
    }
}

/// Where a package from outside may be named.
struct Home {
    package: String,
    folders: Vec<String>,
}

fn homes(workspace: &str, violations: &mut Vec<Violation>) -> Vec<Home> {
    let mut homes = Vec::new();
    for line in lines(workspace).iter().filter(|line| line.section == "workspace.dependencies") {
        let package = line.key.split('.').next().unwrap_or(line.key).trim_matches('"').to_owned();
        if package == "millrace" || package.starts_with("millrace-") {
            continue;
        }
        let places = line.comment.split(':').next().unwrap_or("").split(',');
        let folders: Vec<String> = places.filter_map(|place| place.split_whitespace().next()).map(str::to_owned).collect();
        let known = |home: &String| ARROWS.iter().any(|(folder, _)| is_home(home, folder));
        if folders.is_empty() || !folders.iter().all(known) {
            violations
                .push(Violation::new("Cargo.toml", format!("{package} needs a comment that names its homes: `# folder, folder: why`")));
        }
        homes.push(Home { package, folders });
    }
    homes
}

fn is_home(home: &str, folder: &str) -> bool {
    let inside = |path: &str, folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match home.strip_suffix("/*") {
        Some(above) => inside(folder, above),
        None => home == "all" || inside(home, folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str = "[workspace.dependencies]\nlibc = \"0.2\" # engine/io: calls\nclap = \"4\" # tools/*\nlog = \"0.4\" # all: facade\n\
        memmap2 = \"0.9\" # engine/io/map.rs\nmillrace-io = { path = \"engine/io\" }\n";

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{rest}")
    }

    /// Checks a crate in `folder` with these dependencies; `expected` is part of the one violation, or empty for none.
    fn check_planted(folder: &str, dependencies: &str, expected: &str) {
        let manifest = manifest(&package_name(folder), dependencies);
        let violations = check(&Tree::of(&[("Cargo.toml", WORKSPACE), (&format!("{folder}/Cargo.toml"), &manifest)]));
        let messages: Vec<&str> = violations.iter().map(|violation| violation.message.as_str()).collect();
        match expected {
            "" => assert!(messages.is_empty(), "{folder}: {messages:?}"),
            part => assert!(messages.len() == 1 && messages[0].contains(part), "{folder}: {messages:?} is not {part:?}"),
        }
    }

    #[test]
    fn arrows_that_are_not_listed_are_violations() {
        check_planted("engine/log", "[dependencies]\nmillrace-base.workspace = true\nmillrace-io.workspace = true", "");
        check_planted("raftlog", "[dependencies]\nmillrace-io.workspace = true", "raftlog must not depend on millrace-io");
        check_planted("raftlog", "[dev-dependencies]\nmillrace-sim.workspace = true", "must not depend on millrace-sim");
        check_planted("raftlog", "[build-dependencies.x]\npackage = \"millrace-io\"\nworkspace = true", "must not depend on millrace-io");
        check_planted("engine/io", "[target.'cfg(unix)'.dependencies]\nmillrace-log.workspace = true", "must not depend on millrace-log");
        check_planted("frontends/edge", "[dependencies]\nmillrace-kafka.workspace = true", "must not depend on millrace-kafka");
        check_planted("tools/sim", "[dependencies]\nmillrace-kafka.workspace = true\nmillrace.workspace = true", "");
        check_planted("engine/state", "[dependencies]\nmillrace.workspace = true", "must not depend on millrace");
        check_planted("engine/extra", "", "no row in the table of arrows");
    }

    #[test]
    fn the_page_has_the_same_arrows() {
        let manifests =
            ["engine/io", "engine/log", "tools/sim"].map(|folder| (format!("{folder}/Cargo.toml"), manifest(&package_name(folder), "")));
        let check_page = |page: &str, expected: &[&str]| {
            let mut files: Vec<(&str, &str)> = manifests.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            files.push((PAGE, page));
            let violations = check(&Tree::of(&files));
            let messages: Vec<&str> = violations.iter().map(|violation| violation.message.as_str()).collect();
            assert!(messages.len() == expected.len(), "{messages:?}");
            assert!(messages.iter().zip(expected).all(|(message, part)| message.contains(part)), "{messages:?} is not {expected:?}");
        };
        let page = |rows: &str| format!("# Page\n\n| a | b |\n|---|---|\n| c | d |\n\n| from | to |\n|---|---|\n{rows}\n\n| e | f |\n");
        let good = "| engine/io | - |\n| engine/log | engine/io |\n| tools/sim | anything |";
        check_page(&page(good), &[]);
        check_page(&page(&good.replace("| engine/io |\n", "| engine/io, raftlog |\n")), &["must say: engine/log | engine/io"]);
        check_page(&page(&good.replace("| engine/io | - |\n", "")), &["must say: engine/io | -"]);
        check_page(&page(&good.replace("engine/io | -", "engine/io, raftlog | -")), &["has raftlog, which is not there"]);
        check_page("# Page", &["engine/io", "engine/log", "tools/sim"]);
    }

    #[test]
    fn packages_from_outside_stay_in_their_homes() {
        check_planted("engine/io", "[dependencies]\nlibc.workspace = true\nmemmap2.workspace = true\nlog.workspace = true", "");
        check_planted("engine/log", "[dependencies]\nlibc.workspace = true", "libc is at home in engine/io alone");
        check_planted("engine/log", "[dev-dependencies]\nmemmap2.workspace = true", "memmap2 is at home in engine/io/map.rs alone");
        check_planted("tools/ops", "[dependencies]\nclap.workspace = true", "");
        check_planted("raftlog", "[dependencies]\nclap.workspace = true", "clap is at home in tools/* alone");
        check_planted("raftlog", "[dependencies]\nrand.workspace = true", "rand has no line");
        check_planted("engine/io", "[dependencies]\nlibc = \"0.2\"", "libc must take its version from the workspace's table");
        for comment in ["", "# why not", "# engine/nowhere: x"] {
            let workspace = format!("[workspace.dependencies]\nlibc = \"0.2\" {comment}\n");
            assert_eq!(check(&Tree::of(&[("Cargo.toml", &workspace)])).len(), 1, "{comment:?}");
        }
    }

    #[test]
    fn a_package_bears_its_folders_name_and_takes_the_lints() {
        let planted = |folder: &str, manifest: &str| {
            let violations = check(&Tree::of(&[(&format!("{folder}/Cargo.toml"), manifest)]));
            violations.into_iter().map(|violation| violation.message).collect::<Vec<String>>()
        };
        assert_eq!(planted("engine/log", &manifest("log", "")), ["the package must be called millrace-log"]);
        assert_eq!(planted("tools/millrace", &manifest("millrace", "")), Vec::<String>::new());
        let own = "[package]\nname = \"millrace-log\"\n[lints.rust]\nunsafe_code = \"allow\"\n";
        assert!(planted("engine/log", own)[0].contains("forbid unsafe code outside engine/io"));
        assert_eq!(planted("engine/io", &own.replace("-log", "-io")), Vec::<String>::new());
    }
}
