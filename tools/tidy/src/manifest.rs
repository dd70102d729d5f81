//! As much of a `Cargo.toml` as the arrows need: sections, keys, and the comments behind them.
//!
//! One key a line, as all our manifests are written; values over several lines are passed over by their brackets.

/// One `key = value` and the section that it stands in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    pub section: &'a str,
    pub key: &'a str,
    pub value: &'a str,
    /// What stands behind `#`.
    pub comment: &'a str,
}

/// A dependency of any kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dependency {
    /// The package, not the name it is given here.
    pub package: String,
    /// Whether it takes its version from the workspace's table.
    pub in_workspace: bool,
}

pub fn lines(manifest: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut section = "";
    let mut open = 0;
    for line in manifest.lines() {
        let (code, comment) = split_comment(line);
        let code = code.trim();
        let depth = open;
        if depth == 0 && code.starts_with('[') {
            section = code.trim_matches(['[', ']']).trim();
            continue;
        }
        open += brackets(code);
        if let (0, Some((key, value))) = (depth, code.split_once('=')) {
            lines.push(Line { section, key: key.trim(), value: value.trim(), comment: comment.trim() });
        }
    }
    lines
}

/// All dependencies: normal, dev and build, for every target, in any spelling.
pub fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found: Vec<(String, Dependency)> = Vec::new();
    for line in lines(manifest) {
        let Some((name, property)) = dependency_name(&line) else { continue };
        let renamed = package_in(line.value).filter(|_| property.is_empty());
        let position = found.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            found.push((name.clone(), Dependency { package: name, in_workspace: false }));
            found.len() - 1
        });
        let dependency = &mut found[position].1;
        if property == "package" {
            dependency.package = line.value.trim_matches('"').to_owned();
        }
        if let Some(package) = renamed {
            dependency.package = package.to_owned();
        }
        dependency.in_workspace |= property == "workspace" || line.value.replace(' ', "").contains("workspace=true");
    }
    found.into_iter().map(|(_, dependency)| dependency).collect()
}

/// The dependency that a line speaks of, and which of its properties, if it is one.
fn dependency_name(line: &Line<'_>) -> Option<(String, String)> {
    if line.section.starts_with("workspace") {
        return None;
    }
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let unquoted = |text: &str| text.trim_matches('"').to_owned();
    let (table, last) = line.section.rsplit_once('.').unwrap_or(("", line.section));
    if kinds.contains(&last) {
        let (name, property) = line.key.split_once('.').unwrap_or((line.key, ""));
        return Some((unquoted(name), property.to_owned()));
    }
    let table = table.rsplit_once('.').map_or(table, |(_, last)| last);
    kinds.contains(&table).then(|| (unquoted(last), line.key.to_owned()))
}

/// `name` in `{ package = "name", ... }`.
fn package_in(value: &str) -> Option<&str> {
    let rest = value.strip_prefix('{')?.split_once("package")?.1.trim_start().strip_prefix('=')?;
    rest.split('"').nth(1)
}

fn split_comment(line: &str) -> (&str, &str) {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return (&line[..at], &line[at + 1..]),
            _ => {}
        }
    }
    (line, "")
}

fn brackets(code: &str) -> i32 {
    code.chars().map(|c| i32::from(c == '[' || c == '{') - i32::from(c == ']' || c == '}')).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manifest: &str, expected: &[(&str, bool)]) {
        let found = dependencies(manifest);
        let found: Vec<(&str, bool)> = found.iter().map(|found| (found.package.as_str(), found.in_workspace)).collect();
        assert_eq!(found, expected, "{manifest}");
    }

    #[test]
    fn dependencies_are_found_in_every_spelling() {
        check("[dependencies]\na.workspace = true\nb = { workspace = true } # why\nc = \"1\"\n", &[("a", true), ("b", true), ("c", false)]);
        check("[dev-dependencies]\na.workspace = true\n[build-dependencies]\n\"b\" = \"1\"", &[("a", true), ("b", false)]);
        check("[dependencies.a]\nworkspace = true\nfeatures = [\n \"x\",\n]\n[features]\nf = []\n", &[("a", true)]);
        check(
            "[target.'cfg(unix)'.dependencies]\na = \"1\"\n[target.'cfg(unix)'.dev-dependencies.b]\nversion = \"1\"",
            &[("a", false), ("b", false)],
        );
        check(
            "[dependencies]\nx = { package = \"real\", version = \"1\" }\n[dependencies.y]\npackage = \"other\"",
            &[("real", false), ("other", false)],
        );
        check("[workspace.dependencies]\na = \"1\"\n[package]\nname = \"b\"\n[lints.rust]\nc = \"warn\"", &[]);
    }
}
