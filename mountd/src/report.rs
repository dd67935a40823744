//! Error messages, and the exit codes: [`EXIT_CODES`] lists them.
//!
//! An error is a line of what happened, and lines `try:` with the next thing to do. With `--json`
//! it is one line of JSON instead; docs/JSON.md describes it.

mod usage;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use laminafs::service::migrate::MigrateError;
use laminafs::service::publication::PublicationError;
use laminafs::service::pull::TransferError;
use laminafs::service::status::MountStatus;
use laminafs::service::{CatalogError, Failure, Refusal};

use laminafs::types::BadObjectName;

use crate::options::OptionError;

/// A request failed.
pub const FAILED: u8 = 1;
/// The arguments are wrong.
pub const USAGE: u8 = 2;
/// Ended by a signal; shells use this code for SIGINT.
pub const INTERRUPTED: u8 = 130;
/// The program of a container was not started, as other engines say it.
pub const NOT_STARTED: u8 = 125;
/// The code of mount(8) for a failed mount.
pub const MOUNT_FAILED: u8 = 32;

/// All exit codes with their meanings, in ascending order. Manual pages are made of it.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "Done. For a mount: it is live."),
    (FAILED, "The request failed, or a check found damage or a missing ability."),
    (USAGE, "The arguments of the command are wrong. Nothing was done."),
    (MOUNT_FAILED, "The helpers of mount(8) and umount(8): the mount or the unmount failed."),
    (NOT_STARTED, "container run and exec: the program was not started, or wrong arguments."),
    (126, "container run and exec: the program cannot be executed."),
    (127, "container run and exec: the program is missing. Any other code is that of the program."),
    (
        INTERRUPTED,
        "Ended by a signal. Nothing that was complete is lost, nothing unfinished is left.",
    ),
];

/// The exit codes, as `--help` shows them.
pub fn exit_codes() -> String {
    let lines = EXIT_CODES.iter().map(|(code, meaning)| format!("\n  {code:<4} {meaning}"));
    format!("Exit codes:{}", lines.collect::<String>())
}

/// The reason why the program fails.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A failure of the library.
    #[error("{0}")]
    Failure(#[from] Failure),
    /// An invalid option.
    #[error("{0}")]
    Option(#[from] OptionError),
    /// A failure of images, containers, volumes or their layers.
    #[error("{0}")]
    Refusal(#[from] Refusal),
    /// The arguments are wrong.
    #[error("{0}")]
    Usage(String),
    /// A request for objects of Kubernetes failed.
    #[error("{0}")]
    Objects(String),
    /// The given data root does not exist.
    #[error("data root {} {}", .0.display(), if .0.exists() { "is not a directory" } else {
        "does not exist" })]
    NoRoot(std::path::PathBuf),
    /// A failure of a publication.
    #[error("{0}")]
    Publication(#[from] PublicationError),
    /// Nothing can be taken over from a container engine.
    #[error("{0}")]
    Migrate(#[from] MigrateError),
    /// A failure of a pod.
    #[error("{0}")]
    Pod(String),
    /// A failure of a container.
    #[error("{0}")]
    Container(String),
    /// Any of these errors, in a command whose exit code is otherwise that of a program.
    #[error("{error}")]
    Program {
        /// The exit code.
        code: u8,
        /// The error.
        error: Box<CliError>,
    },
    /// Any other error of the host.
    #[error("{what}: {error}")]
    Io {
        /// The operation.
        what: String,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The output of clap: help, version, or a usage error.
    #[error("{0}")]
    Clap(#[from] clap::Error),
    /// Any of these errors, in a helper of mount(8).
    #[error("{0}")]
    Helper(Box<CliError>),
}

impl From<CatalogError> for CliError {
    fn from(error: CatalogError) -> Self {
        Self::Refusal(error.into())
    }
}

impl From<BadObjectName> for CliError {
    fn from(error: BadObjectName) -> Self {
        CatalogError::from(error).into()
    }
}

impl From<TransferError> for CliError {
    fn from(error: TransferError) -> Self {
        Self::Refusal(error.into())
    }
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            Self::Failure(_)
            | Self::Refusal(_)
            | Self::Objects(_)
            | Self::NoRoot(_)
            | Self::Publication(_)
            | Self::Migrate(_)
            | Self::Pod(_)
            | Self::Container(_)
            | Self::Io { .. } => FAILED,
            Self::Option(_) | Self::Usage(_) => USAGE,
            Self::Clap(error) => u8::try_from(error.exit_code()).unwrap_or(USAGE),
            Self::Helper(_) => MOUNT_FAILED,
            Self::Program { code, .. } => *code,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Failure(failure) => failure.hint(),
            Self::Refusal(refusal) => mounts_of(refusal).or_else(|| refusal.hint()),
            Self::Migrate(error) => error.hint(),
            Self::Helper(inner) => inner.hint(),
            Self::Option(OptionError::Unknown(_)) => Some(
                "leave it out; lamina mount --help lists the options of the command".to_owned(),
            ),
            Self::Io { error, .. } => match error.kind() {
                ErrorKind::NotFound => Some("check the path".to_owned()),
                ErrorKind::PermissionDenied => Some("run as root (sudo)".to_owned()),
                _ => None,
            },
            Self::Program { error, .. } => error.hint(),
            Self::NoRoot(_) => {
                Some("check --root and LAMINA_ROOT; an import or a pull creates it".to_owned())
            }
            Self::Clap(error) => usage::wrong(error).and_then(|wrong| wrong.hint),
            _ => None,
        }
    }

    /// The name or the path of the object that the error is about.
    fn object(&self) -> Option<String> {
        match self {
            Self::Failure(failure) => failure.object(),
            Self::Refusal(refusal) => refusal.object(),
            Self::Helper(inner) => inner.object(),
            Self::Program { error, .. } => error.object(),
            Self::NoRoot(root) => Some(root.display().to_string()),
            Self::Option(OptionError::Unknown(option) | OptionError::Value { option, .. }) => {
                Some(option.clone())
            }
            Self::Clap(error) => usage::wrong(error).and_then(|wrong| wrong.object),
            _ => None,
        }
    }

    /// Prints the error to the standard error.
    pub fn report(&self) -> ExitCode {
        let code = self.code();
        let inner = match self {
            Self::Program { error, .. } => error,
            other => other,
        };
        let what = match inner {
            Self::Clap(error) => match usage::wrong(error) {
                Some(wrong) => wrong.what,
                None if error.print().is_ok() => return ExitCode::from(code),
                None => return ExitCode::from(FAILED),
            },
            other => other.to_string(),
        };
        let text = if JSON.load(Ordering::Relaxed) {
            let (object, hint) = (self.object(), self.hint());
            let error = ErrorObject { error: what, code, object, hint };
            serde_json::to_string(&error).unwrap_or(error.error) + "\n"
        } else {
            let hint = self.hint().map(|hint| format!("  try: {hint}\n")).unwrap_or_default();
            printable(&format!("lamina: {what}\n{hint}"))
        };
        match std::io::stderr().write_all(text.as_bytes()) {
            Ok(()) | Err(_) => ExitCode::from(code),
        }
    }
}

/// The mounts that show a volume which cannot be changed because of them.
fn mounts_of(refusal: &Refusal) -> Option<String> {
    let ("volume", name) = refusal.mounted()? else { return None };
    let dir = crate::run::runtime_dir()?;
    let is_of = |graft: &String| {
        let rest = graft.strip_prefix("volume ").and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with(' '))
    };
    let mut found = laminafs::service::status::list(&dir).ok()?;
    found.retain(|mount| mount.grafts.iter().any(is_of));
    let one = |mount: &MountStatus| {
        format!("lamina umount {} (process {})", mount.target.display(), mount.pid)
    };
    let all: Vec<String> = found.iter().map(one).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// A text without characters that control a terminal, but for line breaks.
fn printable(text: &str) -> String {
    let plain = |one: char| match one.is_control() && one != '\n' {
        true => one.escape_default().to_string(),
        false => one.to_string(),
    };
    text.chars().map(plain).collect()
}

/// Whether errors and warnings are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// An error, with `--json`.
#[derive(serde::Serialize)]
struct ErrorObject {
    error: String,
    code: u8,
    object: Option<String>,
    hint: Option<String>,
}

/// A warning, with `--json`.
#[derive(serde::Serialize)]
struct WarningObject<'a> {
    warning: &'a str,
}

/// Prints that a signal ends the command.
pub fn interrupted() {
    let error = "interrupted: nothing is lost, and nothing unfinished stays".to_owned();
    let text = match JSON.load(Ordering::Relaxed) {
        true => {
            let error = ErrorObject { error, code: INTERRUPTED, object: None, hint: None };
            serde_json::to_string(&error).unwrap_or(error.error) + "\n"
        }
        // A bar may be on the line of the cursor.
        false => format!("\nlamina: {error}\n"),
    };
    if let Err(error) = std::io::stderr().write_all(text.as_bytes()) {
        tracing::debug!(%error, "printing failed");
    }
}

/// Makes errors and warnings JSON if the words of a command ask for it.
pub fn follow(words: &[OsString]) {
    let options = words.iter().take_while(|word| *word != "--");
    JSON.store(options.into_iter().any(|word| word == "--json"), Ordering::Relaxed);
}

/// Prints what a command did, for people: not with `--json`, whose events and results say it.
pub fn note(text: &str) {
    if JSON.load(Ordering::Relaxed) {
        return;
    }
    if let Err(error) = writeln!(std::io::stderr(), "lamina: {text}") {
        tracing::debug!(%error, "printing failed");
    }
}

/// Prints a warning.
pub fn warn(text: &str) {
    let line = match JSON.load(Ordering::Relaxed) {
        true => serde_json::to_string(&WarningObject { warning: text }).unwrap_or_default(),
        false => format!("lamina: warning: {text}"),
    };
    if let Err(error) = writeln!(std::io::stderr(), "{line}") {
        tracing::debug!(%error, "printing a warning failed");
    }
}

/// Writes to the standard output. A closed pipe is not an error.
pub fn say(text: &str) -> Result<(), CliError> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::Io { what: "standard output".to_owned(), error })
        }
        _ => Ok(()),
    }
}

/// Writes JSON to the standard output.
pub fn say_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let wrap =
        |error| CliError::Io { what: "JSON".to_owned(), error: std::io::Error::other(error) };
    let text: Result<String, serde_json::Error> = serde_json::to_string_pretty(value);
    say(&format!("{}\n", text.map_err(wrap)?))
}
