//! The fault atlas, `engine/ATLAS.md`: every row of its tables names a test that shows it, and every test that it names is there.
//!
//! A test is named as `file::function`, the file without folder and ending.

use crate::Violation;
use crate::tree::Tree;

const ATLAS: &str = "engine/ATLAS.md";

pub fn check(tree: &Tree) -> Vec<Violation> {
    let Some(text) = tree.files.get(ATLAS) else { return Vec::new() };
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let tests: Vec<&str> = line.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::")).collect();
        for test in &tests {
            if !exists(tree, test) {
                violations.push(Violation::new(ATLAS, format!("line {number} names {test}, and there is no such test")));
            }
        }
        if is_row(text, line) && tests.is_empty() {
            violations.push(Violation::new(ATLAS, format!("line {number} names no test that shows it")));
        }
    }
    violations
}

/// A line of a table that is neither its head nor the rule below that.
fn is_row(text: &str, line: &str) -> bool {
    let is_rule = |line: &str| line.starts_with("|-") || line.starts_with("| -");
    let is_head = || text.lines().zip(text.lines().skip(1)).any(|(head, below)| head == line && is_rule(below));
    line.starts_with('|') && !is_rule(line) && !is_head()
}

fn exists(tree: &Tree, test: &str) -> bool {
    let Some((file, function)) = test.split_once("::") else { return false };
    let ending = format!("{file}.rs");
    let has = |text: &str| {
        let mut lines = text.lines().map(str::trim);
        lines.any(|line| line == "#[test]") && text.contains(&format!("fn {function}()"))
    };
    tree.files.iter().any(|(path, text)| path.rsplit('/').next() == Some(&ending) && has(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(atlas: &str) -> Vec<String> {
        let tree = Tree::of(&[(ATLAS, atlas), ("tools/sim/tests/cuts.rs", "#[test]\nfn nothing_is_lost() {}\n")]);
        check(&tree).into_iter().map(|violation| violation.message).collect()
    }

    #[test]
    fn each_row_names_a_test_that_is_there() {
        let head = "| fault | shown by |\n|---|---|\n";
        assert_eq!(found(&format!("{head}| a cut | `cuts::nothing_is_lost` |\n")), Vec::<String>::new());
        assert_eq!(found(&format!("{head}| a cut | a test |\n")), ["line 3 names no test that shows it"]);
        let gone = "line 3 names cuts::all_is_lost, and there is no such test";
        assert_eq!(found(&format!("{head}| a cut | `cuts::all_is_lost` |\n")), [gone]);
        assert_eq!(found("Text with `a::b`.\n").len(), 1);
        assert!(check(&Tree::of(&[])).is_empty());
    }
}
