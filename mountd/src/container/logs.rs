//! The output of containers, in the form of the container runtime interface: a line is
//! `TIME STREAM F TEXT`, and a part of a longer one has `P` in the place of `F`.
//!
//! Each run of a container has a file of its own, by number. One that grows beyond a limit is
//! renamed and begun anew; the renamed one is kept. So a container takes a bounded amount of disk.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::files::make_dir;

/// A file is renamed when it has this many bytes.
const FILE_MAX: u64 = 10 << 20;
/// The longest part of a line.
const PART_MAX: usize = 16 << 10;
/// A chunk that is read has about this many bytes.
const CHUNK: usize = 64 << 10;
/// How often two files are opened that are renamed meanwhile.
const TRIES: usize = 8;
/// Between two looks for more output.
const LOOK: Duration = Duration::from_millis(100);
/// Runs whose output is kept: the last one and the one before.
const RUNS: u64 = 2;

/// The output of one run.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    len: u64,
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}.log"))
}

fn rotated(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// The numbers of the runs that have output, the last one last.
fn numbers(dir: &Path) -> Vec<u64> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<u64> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            // One that was just renamed is alone for a moment.
            let name = name.strip_suffix(".1").unwrap_or(name);
            name.strip_suffix(".log")?.parse().ok()
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

impl Log {
    /// Begins the log of the next run in a directory, and removes those that are too old.
    ///
    /// # Errors
    /// As open(2).
    pub fn begin(dir: &Path) -> io::Result<Self> {
        make_dir(dir)?;
        let before = numbers(dir);
        let number = before.last().map_or(0, |last| last + 1);
        for old in before.into_iter().filter(|old| old + RUNS <= number) {
            for at in [path(dir, old), rotated(&path(dir, old))] {
                match fs::remove_file(at) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        let path = path(dir, number);
        let file = File::options().create(true).append(true).open(&path)?;
        Ok(Self { path, file, len: 0 })
    }

    fn add(&mut self, stream: &str, is_whole: bool, text: &[u8]) -> io::Result<()> {
        if self.len >= FILE_MAX {
            fs::rename(&self.path, rotated(&self.path))?;
            self.file = File::options().create(true).append(true).open(&self.path)?;
            self.len = 0;
        }
        let time = humantime::format_rfc3339_nanos(SystemTime::now());
        let mark = if is_whole { 'F' } else { 'P' };
        let mut line = format!("{time} {stream} {mark} ").into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        self.len += line.len() as u64;
        self.file.write_all(&line)
    }
}

/// Copies a stream of a container to its log, until it ends. A full disk loses output, and never
/// holds the container up.
pub fn pump(stream: impl Read, name: &'static str, log: &Arc<Mutex<Log>>) {
    let mut reader = BufReader::with_capacity(PART_MAX, stream);
    let mut line = Vec::new();
    let add = |is_whole, text: &[u8]| {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = log.add(name, is_whole, text) {
            tracing::warn!(%error, "output of a container is lost");
        }
    };
    loop {
        let (found, used) = match reader.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => {
                let room = PART_MAX.saturating_sub(line.len()).max(1);
                let bytes = bytes.get(..room).unwrap_or(bytes);
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let text = end.and_then(|end| bytes.get(..end)).unwrap_or(bytes);
                line.extend_from_slice(text);
                (end.is_some(), text.len() + usize::from(end.is_some()))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        reader.consume(used);
        if found || line.len() >= PART_MAX {
            add(found, &line);
            line.clear();
        }
    }
    if !line.is_empty() {
        // As other runtimes do: the last line is whole, with or without its end.
        add(true, &line);
    }
}

/// What of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The run before the last one.
    pub is_previous: bool,
    /// With the time of each line.
    pub has_times: bool,
    /// The last lines alone.
    pub tail: Option<u64>,
    /// What came since a time.
    pub since: Option<SystemTime>,
    /// At most so many bytes.
    pub bytes: Option<u64>,
}

/// A log that is read.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    number: u64,
    path: PathBuf,
    /// The file that is read.
    now: BufReader<File>,
    /// The file that follows it.
    next: Option<File>,
    /// A line whose end is not written yet.
    begun: Vec<u8>,
    skip: u64,
    left: u64,
    wanted: Wanted,
    is_line_start: bool,
}

/// A file, unless there is none.
fn found(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

fn is_same(one: &File, other: &File) -> io::Result<bool> {
    Ok(one.metadata()?.ino() == other.metadata()?.ino())
}

/// The files of a run: the renamed one, and the one after it.
fn both(path: &Path) -> io::Result<(Option<File>, Option<File>)> {
    let mut tries = 0;
    loop {
        let first = found(&rotated(path))?;
        let second = found(path)?;
        let again = found(&rotated(path))?;
        let is_still = match (&first, &again) {
            (Some(first), Some(again)) => is_same(first, again)?,
            (first, again) => first.is_none() && again.is_none(),
        };
        tries += 1;
        if is_still || tries == TRIES {
            return Ok((first, second));
        }
        // One was renamed in between: what is between the two would be missing.
    }
}

/// The number of whole lines in a file that is read from its beginning later.
fn count(mut file: &File) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(CHUNK, file);
    let (mut lines, mut line) = (0, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        if parse(&line).is_some_and(|parsed| parsed.is_whole) {
            lines += 1;
        }
        line.clear();
    }
    file.rewind()?;
    Ok(lines)
}

/// The end of the last lines that a container, or its runtime, wrote; empty if there are none.
pub fn last_lines(dir: &Path, lines: u64, bytes: usize) -> String {
    let wanted = Wanted { tail: Some(lines), ..Wanted::default() };
    let chunk = Reader::open(dir, wanted).and_then(|reader| {
        let Some(mut reader) = reader else { return Ok(None) };
        reader.chunk()
    });
    let chunk = chunk.ok().flatten().unwrap_or_default();
    let end = chunk.get(chunk.len().saturating_sub(bytes)..).unwrap_or_default();
    String::from_utf8_lossy(end).trim().to_owned()
}

struct Parsed<'a> {
    time: &'a [u8],
    is_whole: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Parsed<'_>> {
    let line = line.strip_suffix(b"\n")?;
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, _stream, mark) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Parsed { time, is_whole: mark == b"F", text: parts.next().unwrap_or_default() })
}

impl Reader {
    /// Opens the log of a container in its directory. `None` if there is no such run.
    ///
    /// # Errors
    /// As open(2) and read(2).
    pub fn open(dir: &Path, wanted: Wanted) -> io::Result<Option<Self>> {
        let all = numbers(dir);
        let number = match (all.last(), wanted.is_previous) {
            (None, _) => return Ok(None),
            (Some(last), false) => *last,
            (Some(last), true) => match last.checked_sub(1).filter(|one| all.contains(one)) {
                Some(before) => before,
                None => return Ok(None),
            },
        };
        let path = path(dir, number);
        let (now, next) = match both(&path)? {
            (Some(first), second) => (first, second),
            (None, Some(second)) => (second, None),
            (None, None) => return Ok(None),
        };
        let skip = match wanted.tail {
            Some(tail) => {
                let later = next.as_ref().map_or(Ok(0), count)?;
                (count(&now)? + later).saturating_sub(tail)
            }
            None => 0,
        };
        Ok(Some(Self {
            dir: dir.to_owned(),
            number,
            path,
            now: BufReader::with_capacity(CHUNK, now),
            next,
            begun: Vec::new(),
            skip,
            left: wanted.bytes.unwrap_or(u64::MAX),
            wanted,
            is_line_start: true,
        }))
    }

    /// Whether the container has run again since: nothing comes after what is written now.
    pub fn is_past(&self) -> bool {
        numbers(&self.dir).last().is_some_and(|last| *last > self.number)
    }

    /// The next lines; empty if there are none yet, `None` after the last byte that is wanted.
    ///
    /// # Errors
    /// As read(2).
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        while out.len() < CHUNK && self.left > 0 {
            if self.now.read_until(b'\n', &mut self.begun)? == 0 {
                if !self.advance()? {
                    break;
                }
                continue;
            }
            if self.begun.ends_with(b"\n") {
                let line = std::mem::take(&mut self.begun);
                self.show(&line, &mut out);
            }
        }
        let is_over = self.left == 0 && out.is_empty();
        Ok((!is_over).then_some(out))
    }

    /// Goes on with the next file, if there is one.
    fn advance(&mut self) -> io::Result<bool> {
        if let Some(next) = self.next.take() {
            // A line without its end, as a full disk leaves it, does not go on in the next file.
            self.begun.clear();
            self.now = BufReader::with_capacity(CHUNK, next);
            return Ok(true);
        }
        let now = self.now.get_ref();
        let Some(new) = found(&self.path)? else { return Ok(false) };
        if is_same(&new, now)? {
            return Ok(false);
        }
        // Lines that were written before the rename may be left in this file: it is read to its
        // end once more. If it is not even the renamed one, that one comes before the new one.
        self.next = match found(&rotated(&self.path))? {
            Some(old) if !is_same(&old, now)? => Some(old),
            _ => Some(new),
        };
        Ok(true)
    }

    fn show(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(Parsed { time, is_whole, text }) = parse(line) else { return };
        if self.skip > 0 {
            self.skip -= u64::from(is_whole);
            return;
        }
        if let Some(since) = self.wanted.since {
            let time = std::str::from_utf8(time).ok();
            let time = time.and_then(|time| humantime::parse_rfc3339(time).ok());
            if time.is_some_and(|time| time < since) {
                return;
            }
        }
        let mut shown = Vec::new();
        if self.wanted.has_times && self.is_line_start {
            shown.extend_from_slice(time);
            shown.push(b' ');
        }
        shown.extend_from_slice(text);
        if is_whole {
            shown.push(b'\n');
        }
        self.is_line_start = is_whole;
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let shown = shown.get(..room).unwrap_or(&shown);
        self.left -= shown.len() as u64;
        out.extend_from_slice(shown);
    }
}

/// Prints a log. As long as `goes_on` says so, the end is waited for; a closed pipe is an end too.
///
/// # Errors
/// As read(2) and write(2).
pub fn copy(reader: &mut Reader, goes_on: impl Fn() -> bool) -> io::Result<()> {
    let mut is_last = false;
    while let Some(chunk) = reader.chunk()? {
        if !chunk.is_empty() {
            match io::stdout().write_all(&chunk) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                done => done?,
            }
            continue;
        }
        if is_last {
            break;
        }
        // What was written until the end comes with a last look. A short end between two runs is
        // seldom seen in a status, but the log of the next run is there.
        is_last = reader.is_past() || !goes_on();
        if !is_last {
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path, text: &[u8]) -> Arc<Mutex<Log>> {
        let log = Arc::new(Mutex::new(Log::begin(dir).unwrap()));
        pump(text, "stdout", &log);
        log
    }

    fn read(dir: &Path, wanted: Wanted) -> String {
        let mut reader = Reader::open(dir, wanted).unwrap().unwrap();
        let mut all = Vec::new();
        while let Some(chunk) = reader.chunk().unwrap().filter(|chunk| !chunk.is_empty()) {
            all.extend(chunk);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn lines_come_back_whole_or_from_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        assert!(Reader::open(at, Wanted::default()).unwrap().is_none());
        let long = "x".repeat(3 * PART_MAX + 5);
        written(at, format!("a\n\n{long}\nlast").as_bytes());
        assert_eq!(read(at, Wanted::default()), format!("a\n\n{long}\nlast\n"));
        let tail = |lines| read(at, Wanted { tail: Some(lines), ..Wanted::default() });
        assert_eq!((tail(1), tail(0)), ("last\n".to_owned(), String::new()));
        assert_eq!(tail(2).len(), long.len() + 6);
        let few = read(at, Wanted { bytes: Some(3), ..Wanted::default() });
        assert_eq!(few, "a\n\n");
        let times = read(at, Wanted { has_times: true, tail: Some(1), ..Wanted::default() });
        let (time, text) = times.split_once(' ').unwrap();
        humantime::parse_rfc3339(time).unwrap();
        assert_eq!(text, "last\n");
        let later = SystemTime::now() + Duration::from_secs(9);
        assert_eq!(read(at, Wanted { since: Some(later), ..Wanted::default() }), "");
    }

    #[test]
    fn the_run_before_is_kept_and_older_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let previous = Wanted { is_previous: true, ..Wanted::default() };
        written(dir.path(), b"0\n");
        assert!(Reader::open(dir.path(), previous.clone()).unwrap().is_none());
        written(dir.path(), b"1\n");
        written(dir.path(), b"2\n");
        assert_eq!(read(dir.path(), previous), "1\n");
        assert_eq!(read(dir.path(), Wanted::default()), "2\n");
        assert_eq!(numbers(dir.path()), [1, 2]);
    }

    #[test]
    fn a_long_log_is_renamed_and_a_reader_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let log = written(at, b"first\n");
        let mut reader = Reader::open(at, Wanted::default()).unwrap().unwrap();
        assert_eq!(reader.chunk().unwrap().unwrap(), b"first\n");
        log.lock().unwrap().len = FILE_MAX;
        pump(&b"second\n"[..], "stderr", &log);
        assert_eq!(reader.chunk().unwrap().unwrap(), b"second\n");
        assert_eq!(reader.chunk().unwrap().unwrap(), b"");
        assert_eq!(read(at, Wanted::default()), "first\nsecond\n");
        assert_eq!(read(at, Wanted { tail: Some(1), ..Wanted::default() }), "second\n");
    }

    #[test]
    fn lines_before_a_rename_that_a_reader_has_not_seen_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let log = written(at, b"first\n");
        let mut reader = Reader::open(at, Wanted::default()).unwrap().unwrap();
        assert_eq!(reader.chunk().unwrap().unwrap(), b"first\n");
        // At the end of the file the reader looks for the next one: here lines and a rename come
        // before that look.
        assert_eq!(reader.now.fill_buf().unwrap(), b"");
        pump(&b"late\n"[..], "stdout", &log);
        log.lock().unwrap().len = FILE_MAX;
        pump(&b"second\n"[..], "stdout", &log);
        assert!(reader.advance().unwrap());
        assert_eq!(reader.chunk().unwrap().unwrap(), b"late\nsecond\n");
        // And a file that came and was renamed in between.
        for text in [&b"third\n"[..], b"fourth\n"] {
            log.lock().unwrap().len = FILE_MAX;
            pump(text, "stdout", &log);
        }
        assert_eq!(reader.chunk().unwrap().unwrap(), b"third\nfourth\n");
    }

    #[test]
    fn a_renamed_log_without_a_new_one_is_read_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        written(at, b"first\n");
        fs::rename(path(at, 0), rotated(&path(at, 0))).unwrap();
        let mut reader = Reader::open(at, Wanted::default()).unwrap().unwrap();
        assert_eq!(reader.chunk().unwrap().unwrap(), b"first\n");
        assert!(!reader.is_past());
        written(at, b"next run\n");
        assert!(reader.is_past());
        assert_eq!(reader.chunk().unwrap().unwrap(), b"");
    }
}
