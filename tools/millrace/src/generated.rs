//! What is made from the definitions of the command line: shell completions and manual pages.
//!
//! Knows nothing of any one command.

use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use millrace::failure::Failure;

/// The completions of one shell, as text to be sourced.
pub fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "millrace", &mut text);
    text
}

/// Writes a page for each command into `directory`, which is made if it is not there: `millrace-topic-list.1`. Gives how many.
///
/// # Errors
/// The directory or a page cannot be written.
pub fn manual(command: Command, directory: &str) -> Result<usize, Failure> {
    let failed = |error: std::io::Error| Failure::Run(format!("cannot write manual pages into {directory}: {error}"));
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut written = 0;
    pages(&command, "millrace", &mut |name, command| {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).title(name.to_ascii_uppercase()).render(&mut page)?;
        written += 1;
        std::fs::write(Path::new(directory).join(format!("{name}.1")), page)
    })
    .map_err(failed)?;
    Ok(written)
}

/// Gives each command with the name of its page, and the arguments that it shares with its siblings.
fn pages(command: &Command, name: &str, write: &mut impl FnMut(&str, Command) -> std::io::Result<()>) -> std::io::Result<()> {
    let spaced: &'static str = Box::leak(name.replace('-', " ").into_boxed_str());
    write(name, command.clone().name(spaced).bin_name(spaced))?;
    command.get_subcommands().try_for_each(|sub| pages(sub, &format!("{name}-{}", sub.get_name()), write))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verbs(command: &Command) -> usize {
        1 + command.get_subcommands().map(verbs).sum::<usize>()
    }

    #[test]
    fn every_command_has_a_page_and_is_completed() {
        let folder = std::env::temp_dir().join(format!("millrace-man-test-{}", std::process::id()));
        let written = manual(crate::cli::command(), &folder.to_string_lossy()).expect("pages");
        assert_eq!(written, verbs(&crate::cli::command()));
        let page = std::fs::read_to_string(folder.join("millrace-topic-add-partitions.1")).expect("a page");
        for part in ["MILLRACE-TOPIC-ADD-PARTITIONS", "Add partitions to topics", "dry\\-run", "Exit codes"] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        std::fs::remove_dir_all(&folder).expect("it is ours");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(completions(crate::cli::command(), shell)).expect("text");
            assert!(text.contains("add-partitions") && text.contains("if-not-exists"), "{shell}");
        }
    }
}
