//! The repository's text files, by path from its root with `/` between folders.
//!
//! Left out: what version control ignores by `.gitignore`'s plain names, hidden folders but `.ci`, and files that are not text.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Folders that hold no source.
const SKIPPED: &[&str] = &["node_modules", "__pycache__"];

/// Those that hold none at the top: what was built, and what `scripts/start` keeps.
const SKIPPED_AT_TOP: &[&str] = &["target", "data"];

/// Larger files are test data.
const FILE_BYTES_MAX: u64 = 4 << 20;

pub struct Tree {
    pub files: BTreeMap<String, String>,
}

impl Tree {
    pub fn read(root: &Path) -> Result<Tree, String> {
        let mut tree = Tree { files: BTreeMap::new() };
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Tree {
        Tree { files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect() }
    }

    fn read_folder(&mut self, folder: &Path, path: &str) -> Result<(), String> {
        let broken = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
        for entry in fs::read_dir(folder).map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let inner = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let metadata = fs::metadata(entry.path()).map_err(|error| format!("cannot read {inner}: {error}"))?;
            if name == ".git" {
                continue;
            }
            if metadata.is_dir() {
                let hidden = name.starts_with('.') && name != ".ci";
                let skipped = SKIPPED.contains(&name.as_str()) || SKIPPED_AT_TOP.contains(&inner.as_str());
                if !hidden && !skipped {
                    self.read_folder(&entry.path(), &inner)?;
                }
            } else if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX {
                let bytes = fs::read(entry.path()).map_err(|error| format!("cannot read {inner}: {error}"))?;
                if let Ok(text) = String::from_utf8(bytes) {
                    self.files.insert(inner, text);
                }
            }
        }
        Ok(())
    }
}
