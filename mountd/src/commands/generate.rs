//! `lamina generate`: man pages and completions, made of the definitions of the commands.
//!
//! Packages and `scripts/install` call it, so that every page and every completion belongs to the
//! program beside it. The command is hidden: it changes no object of Lamina.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::shells;
use clap_mangen::Man;

use crate::report::{CliError, EXIT_CODES, say};

/// Arguments of `lamina generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The command.
    #[command(subcommand)]
    pub command: GenerateCommand,
}

/// Commands of `lamina generate`.
#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// Write a man page for each command into a directory, which is made if it is missing.
    Man {
        /// The directory.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// A shell with completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash with the package bash-completion.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// A man page: the name of its file, and its source.
struct Page {
    file: String,
    text: Vec<u8>,
}

/// Runs the command for the definitions of all commands.
///
/// # Errors
/// [`CliError::Io`].
pub fn run(args: &GenerateArgs, commands: clap::Command) -> Result<ExitCode, CliError> {
    match &args.command {
        GenerateCommand::Man { directory } => write_pages(directory, commands)?,
        GenerateCommand::Completions { shell } => {
            let mut text = Vec::new();
            complete(*shell, &commands, &mut text);
            say(&String::from_utf8_lossy(&text))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_pages(directory: &Path, commands: clap::Command) -> Result<(), CliError> {
    let failed = |path: &Path, error| CliError::Io { what: path.display().to_string(), error };
    let pages = pages(commands).map_err(|error| failed(directory, error))?;
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    for page in &pages {
        let path = directory.join(&page.file);
        std::fs::write(&path, &page.text).map_err(|error| failed(&path, error))?;
    }
    say(&format!("{} pages in {}\n", pages.len(), directory.display()))
}

/// A command without the hidden ones below it, which the completions of clap would offer. clap
/// cannot remove commands, so it is made anew of its parts.
fn visible(command: &clap::Command) -> clap::Command {
    // Names live as long as the program, and it ends soon.
    let kept = |name: &str| -> &'static str { name.to_owned().leak() };
    let made = clap::Command::new(kept(command.get_name()))
        .visible_aliases(command.get_visible_aliases().map(kept))
        .disable_version_flag(command.is_disable_version_flag_set())
        .groups(command.get_groups().cloned())
        .args(command.get_arguments().cloned())
        .subcommands(command.get_subcommands().filter(|below| is_shown(below)).map(visible));
    let made = match command.get_version() {
        Some(version) => made.version(kept(version)),
        None => made,
    };
    match command.get_about() {
        Some(about) => made.about(about.clone()),
        None => made,
    }
}

fn complete(shell: Shell, commands: &clap::Command, to: &mut dyn Write) {
    let mut commands = visible(commands);
    let name = commands.get_name().to_owned();
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut commands, name, &mut &mut *to),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut commands, name, &mut &mut *to),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut commands, name, &mut &mut *to),
    }
}

/// The pages of all visible commands.
fn pages(commands: clap::Command) -> std::io::Result<Vec<Page>> {
    let mut commands = commands.disable_help_subcommand(true);
    let release = format!("Lamina {}", commands.get_version().unwrap_or_default());
    commands.build();
    let mut pages = Vec::new();
    let mut left = vec![(commands, None)];
    while let Some((command, parent)) = left.pop() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let below = command.get_subcommands().filter(|below| is_shown(below)).cloned();
        left.extend(below.map(|below| (below, Some(name.clone()))));
        pages.push(page(command, &release, parent.as_deref())?);
    }
    Ok(pages)
}

fn is_shown(command: &clap::Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn page(command: clap::Command, release: &str, parent: Option<&str>) -> std::io::Result<Page> {
    let has_commands = command.get_subcommands().any(is_shown);
    let man = Man::new(command).source(release).manual("Lamina");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    writeln!(text, ".SH \"EXIT STATUS\"")?;
    for (code, meaning) in EXIT_CODES {
        writeln!(text, ".TP\n\\fB{code}\\fR\n{}", meaning.replace('-', "\\-"))?;
    }
    // The helpers have a page of their own, written by hand.
    let other = parent.map_or_else(
        || "\\fBmount.lamina\\fR(8)".to_owned(),
        |parent| format!("\\fB{}\\fR(1)", parent.replace('-', "\\-")),
    );
    writeln!(text, ".SH \"SEE ALSO\"\n{other}")?;
    Ok(Page { file: man.get_filename(), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    fn names(command: &clap::Command, prefix: &str) -> Vec<String> {
        let name = format!("{prefix}{}", command.get_name());
        let below = command.get_subcommands().filter(|below| is_shown(below));
        let below = below.flat_map(|below| names(below, &format!("{name}-")));
        below.chain([format!("{name}.1")]).collect()
    }

    #[test]
    fn every_visible_command_has_a_page_and_no_hidden_one() {
        let mut wanted = names(&cli::command(), "");
        let mut found: Vec<_> = pages(cli::command()).unwrap();
        found.sort_by(|one, other| one.file.cmp(&other.file));
        wanted.sort();
        assert_eq!(found.iter().map(|page| page.file.clone()).collect::<Vec<_>>(), wanted);
        assert!(wanted.contains(&"lamina-volume-create.1".to_owned()));
        assert!(!wanted.contains(&"lamina-generate.1".to_owned()));
        for page in found {
            let text = String::from_utf8(page.text).unwrap();
            let name = page.file.trim_end_matches(".1");
            assert!(
                text.contains(&format!(".SH NAME\n{} \\- ", name.replace('-', "\\-"))),
                "{text}"
            );
            for (code, _) in EXIT_CODES {
                assert!(text.contains(&format!("\\fB{code}\\fR\n")), "{}: {code}", page.file);
            }
        }
    }

    #[test]
    fn completions_know_commands_and_flags_and_nothing_hidden() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            complete(shell, &cli::command(), &mut text);
            let text = String::from_utf8(text).unwrap();
            for word in ["snapshot", "kubeconfig", "ephemeral"] {
                assert!(text.contains(word), "{shell:?} lacks {word}");
            }
            for word in ["generate", "tidy", "supervise", "Serve a volume"] {
                assert!(!text.contains(word), "{shell:?} offers {word}");
            }
        }
    }
}
