//! The log of warnings and errors.
//!
//! A command writes to its standard error. A mount in the background has none, and corruption must
//! not go unnoticed: it writes to the journal, else to syslog, else to `lamina.log` in the runtime
//! directory, and shows the destination in its status. The file is renamed to `lamina.log.1` when
//! it reaches a MiB; all mounts of a user share it.
//!
//! A line is not repeated within a minute: a reader that hits a damaged frame in a loop must not
//! fill a disk.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{EnvFilter, reload};

use crate::report::CliError;

/// The socket of systemd's journal: fields, each `NAME=VALUE` and a line feed (systemd,
/// "Native Journal Protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";
/// The socket of syslog(3).
const SYSLOG: &str = "/dev/log";
const FILE: &str = "lamina.log";
/// The file is renamed when it has this many bytes.
const FILE_MAX: u64 = 1 << 20;
/// The longest line.
const LINE_MAX: usize = 4 << 10;
/// The time for which a line is not repeated, and the number of lines that are remembered.
const SAID_FOR: Duration = Duration::from_secs(60);
const SAID: usize = 64;
/// `LOG_DAEMON` of syslog(3).
const FACILITY: u8 = 3;
/// The default of `LAMINA_LOG`: without warnings of other crates.
const DEFAULT: &str = "error,lamina=warn,laminafs=warn";

static LOG: OnceLock<Arc<Mutex<Log>>> = OnceLock::new();
static CHANGE: OnceLock<Box<Change>> = OnceLock::new();

/// Changes the filter.
type Change = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

/// A destination of the log.
enum Way {
    Stderr,
    /// The file of `LAMINA_LOG_FILE`.
    Given(File),
    Journal(UnixDatagram),
    Syslog(UnixDatagram),
    Kept(PathBuf),
    Nowhere,
}

impl Way {
    /// The destination, as the status of a mount shows it.
    fn label(&self) -> String {
        match self {
            Self::Stderr => "standard error".to_owned(),
            Self::Given(_) => "LAMINA_LOG_FILE".to_owned(),
            Self::Journal(_) => "journal".to_owned(),
            Self::Syslog(_) => "syslog".to_owned(),
            Self::Kept(path) => path.display().to_string(),
            Self::Nowhere => "nowhere: the host has no runtime directory".to_owned(),
        }
    }
}

struct Log {
    way: Way,
    /// The destination after the process has gone to the background.
    later: Option<Way>,
    said: VecDeque<(String, Instant)>,
}

fn connected(path: &str) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(path).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

fn background(runtime: Option<PathBuf>) -> Way {
    let journal = connected(JOURNAL).map(Way::Journal);
    let found = journal.or_else(|| connected(SYSLOG).map(Way::Syslog));
    let kept = || runtime.map(|dir| Way::Kept(dir.join(FILE)));
    found.or_else(kept).unwrap_or(Way::Nowhere)
}

/// Starts the log. `LAMINA_LOG` is the filter, `LAMINA_LOG_FILE` the destination.
pub fn start(runtime: Option<PathBuf>) {
    let filter = EnvFilter::try_from_env("LAMINA_LOG");
    let is_asked = filter.is_ok();
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let given = std::env::var_os("LAMINA_LOG_FILE").filter(|_| is_asked);
    let given = given.and_then(|path| File::options().create(true).append(true).open(path).ok());
    let (way, later) = match given {
        Some(file) => (Way::Given(file), None),
        None => (Way::Stderr, Some(background(runtime))),
    };
    let log = Arc::new(Mutex::new(Log { way, later, said: VecDeque::new() }));
    let log = Arc::clone(LOG.get_or_init(|| log));
    let lines = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_level(false)
        .with_target(is_asked)
        .with_writer(Lines(log))
        .with_env_filter(filter)
        .with_filter_reloading();
    let handle = lines.reload_handle();
    CHANGE.get_or_init(|| Box::new(move |filter| handle.reload(filter)));
    let started = lines.try_init();
    if let Err(error) = started {
        crate::report::warn(&format!("no log: {error}"));
    }
}

/// Sets the filter of a daemon in the foreground, unless `LAMINA_LOG` is set, and writes to the
/// journal if the standard error leads there. A level applies to this program alone.
///
/// # Errors
/// [`CliError::Usage`] for a filter that cannot be parsed.
pub fn serve(filter: &str) -> Result<(), CliError> {
    if std::env::var_os("LAMINA_LOG").is_none() {
        let is_level = filter.parse::<Level>().is_ok();
        let text = match is_level {
            true => format!("error,lamina={filter},laminafs={filter}"),
            false => filter.to_owned(),
        };
        let wrong = |error| CliError::Usage(format!("log is {filter:?}: {error}"));
        let parsed = EnvFilter::try_new(text).map_err(wrong)?;
        if let Some(change) = CHANGE.get()
            && let Err(error) = change(parsed)
        {
            tracing::warn!(%error, "the log filter stays");
        }
    }
    if let Some(log) = LOG.get()
        && let Ok(mut log) = log.lock()
        && matches!(log.way, Way::Stderr)
        && is_journal()
        && let Some(socket) = connected(JOURNAL)
    {
        log.way = Way::Journal(socket);
    }
    Ok(())
}

/// Whether the standard error is the journal: systemd names its device and inode number.
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(rustix::stdio::stderr())
        .is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The destination of the log of a mount, in the foreground or in the background.
pub fn place(foreground: bool) -> Option<String> {
    let log = LOG.get()?.lock().ok()?;
    let later = log.later.as_ref().filter(|_| !foreground);
    Some(later.unwrap_or(&log.way).label())
}

/// Switches the destination when the process goes to the background and loses its standard error.
pub fn detach() {
    if let Some(log) = LOG.get()
        && let Ok(mut log) = log.lock()
        && let Some(later) = log.later.take()
    {
        log.way = later;
    }
}

/// Formats each event as a line.
struct Lines(Arc<Mutex<Log>>);

struct Line<'a> {
    log: &'a Mutex<Log>,
    level: Level,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { log: &self.0, level: Level::INFO, text: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line { log: &self.0, level: *meta.level(), text: Vec::new() }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = LINE_MAX.saturating_sub(self.text.len());
        self.text.extend_from_slice(buf.get(..room.min(buf.len())).unwrap_or_default());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        // One event is one line, even if file names contain line feeds.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = text.trim_end().chars().map(plain).collect();
        if let Ok(mut log) = self.log.lock() {
            log.say(self.level, &text);
        }
    }
}

/// The priority of syslog(3).
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

impl Log {
    fn say(&mut self, level: Level, text: &str) {
        let now = Instant::now();
        self.said.retain(|(_, at)| now.duration_since(*at) < SAID_FOR);
        if self.said.iter().any(|(said, _)| said == text) {
            return;
        }
        self.said.truncate(SAID - 1);
        self.said.push_front((text.to_owned(), now));
        // There is no place left to report this failure.
        drop(self.write(level, text));
    }

    fn write(&mut self, level: Level, text: &str) -> io::Result<()> {
        let (priority, word, pid) = (priority(level), word(level), std::process::id());
        let dated = || format!("{} lamina[{pid}] {word}: {text}\n", utc(SystemTime::now()));
        match &mut self.way {
            // With --json a warning is an object.
            Way::Stderr if level == Level::WARN => {
                crate::report::warn(text);
                Ok(())
            }
            Way::Stderr => io::stderr().write_all(format!("lamina: {word}: {text}\n").as_bytes()),
            Way::Given(file) => file.write_all(dated().as_bytes()),
            Way::Journal(socket) => {
                let fields = format!(
                    "PRIORITY={priority}\nSYSLOG_IDENTIFIER=lamina\nSYSLOG_PID={pid}\n\
                     MESSAGE={text}\n"
                );
                socket.send(fields.as_bytes()).map(drop)
            }
            Way::Syslog(socket) => {
                let line = format!("<{}>lamina[{pid}]: {text}", FACILITY << 3 | priority);
                socket.send(line.as_bytes()).map(drop)
            }
            Way::Kept(path) => append(path, &dated()),
            Way::Nowhere => Ok(()),
        }
    }
}

/// Appends a line to a file that several processes share, and rotates it when it is long.
fn append(path: &Path, line: &str) -> io::Result<()> {
    if let Some(dir) = path.parent()
        && !dir.exists()
    {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    // Another process may rename it between the two calls.
    for _ in 0..8 {
        let mut file = options.open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        let found = file.metadata()?;
        if std::fs::metadata(path).is_ok_and(|named| named.ino() != found.ino()) {
            continue;
        }
        if found.len() >= FILE_MAX {
            std::fs::rename(path, path.with_extension("log.1"))?;
            continue;
        }
        return file.write_all(line.as_bytes());
    }
    Ok(())
}

/// `YYYY-MM-DDTHH:MM:SSZ`.
fn utc(now: SystemTime) -> String {
    let secs = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (secs / 86_400, secs % 86_400);
    // Counts years from March, 400 at a time ("chrono-compatible low-level date algorithms").
    let (era, day) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let in_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let date = in_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(secs)), text);
        }
    }

    fn in_temp() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("lamina-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_file_is_bounded_and_a_line_is_not_repeated() {
        let dir = in_temp();
        let path = dir.join("deep").join(FILE);
        let mut log = Log { way: Way::Kept(path.clone()), later: None, said: VecDeque::new() };
        for _ in 0..100 {
            log.say(Level::ERROR, "the frame at byte 64 differs from its digest");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("error: the frame at byte 64"), "{text}");
        for number in 0..700 {
            append(&path, &format!("{number} {}\n", "x".repeat(3000))).unwrap();
        }
        let len = |name: &str| std::fs::metadata(path.with_file_name(name)).unwrap().len();
        let (now, before) = (len(FILE), len("lamina.log.1"));
        assert!(now < FILE_MAX + 4000 && before < FILE_MAX + 4000, "{now} {before}");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn journal_and_syslog_get_what_they_read() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut log = Log { way: Way::Journal(ours), later: None, said: VecDeque::new() };
        log.say(Level::WARN, "a warning");
        let mut buffer = [0; 500];
        let len = theirs.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        assert!(text.starts_with("PRIORITY=4\nSYSLOG_IDENTIFIER=lamina\n"), "{text}");
        assert!(text.ends_with("MESSAGE=a warning\n"), "{text}");
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        log.way = Way::Syslog(ours);
        log.say(Level::ERROR, "an error");
        let len = theirs.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        assert!(text.starts_with("<27>lamina[") && text.ends_with("]: an error"), "{text}");
    }
}
