//! The client of a container that runs: its terminal, its signals, its exit code.

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use laminafs::service::process::Signals;
use rustix::process::Signal;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::wire::{Frame, receive, send};

/// Ctrl-P and Ctrl-Q, one after the other, leave the container as it is.
const DETACH: [u8; 2] = [16, 17];
/// Input is sent in parts of at most this size.
const PART: usize = 16 << 10;
/// The exit code of a command whose output is not read any more: 128 and SIGPIPE.
const UNREAD: u8 = 141;

/// How a client left a container.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program ended.
    Ended(u8),
    /// The program did not begin.
    Failed(u8, String),
    /// The user left; the container goes on.
    Detached,
    /// The process that held the container is gone.
    Lost,
}

/// What a client takes part in.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// It sends its standard input.
    pub input: bool,
    /// The program has a terminal, so the one of the client passes everything on.
    pub terminal: bool,
}

/// The mode of a terminal, which is restored at the end.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, &self.0) {
            tracing::warn!(%error, "the mode of the terminal is not restored");
        }
    }
}

fn size() -> Option<Frame> {
    let size = [tcgetwinsize(io::stdout()), tcgetwinsize(io::stdin())];
    let size = size.into_iter().find_map(Result::ok)?;
    Some(Frame::Size(size.ws_row, size.ws_col))
}

/// The signals that a client passes on.
fn passed() -> [i32; 6] {
    [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2]
        .map(Signal::as_raw)
}

/// Holds back the signals that a client passes on, for this thread and those that it starts later.
///
/// # Errors
/// As pthread_sigmask(3).
pub fn hold_signals(with_size: bool) -> io::Result<Signals> {
    let mut all = passed().to_vec();
    all.extend(with_size.then_some(Signal::WINCH.as_raw()));
    Signals::block(&all).map_err(io::Error::other)
}

/// Connects to a container and stays until its program ends.
///
/// # Errors
/// As connect(2) and of the terminal.
pub fn attach(socket: &Path, part: Part) -> io::Result<Outcome> {
    let signals = hold_signals(part.terminal)?;
    let mut control = UnixStream::connect(socket)?;
    let mut stream = UnixStream::connect(socket)?;
    if part.terminal
        && let Some(size) = size()
    {
        send(&mut control, &size)?;
    }
    send(&mut stream, &Frame::Attach)?;
    let left = Arc::<AtomicBool>::default();
    let raw = if part.terminal && part.input { Raw::enter()? } else { None };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            let signal = signals.wait();
            let frame = match signal == Signal::WINCH.as_raw() {
                true => size(),
                false => Some(Frame::Signal(signal)),
            };
            let Some(frame) = frame else { continue };
            if let Err(error) = send(&mut control, &frame) {
                tracing::debug!(%error, signal, "a signal was not passed on");
            }
        }
    })?;
    if part.input {
        let (mut to, may_leave) = (stream.try_clone()?, raw.is_some());
        let left = Arc::clone(&left);
        let copy = move || {
            if let Err(error) = send_input(&mut to, may_leave.then_some(&*left)) {
                tracing::debug!(%error, "the input was not passed on");
            }
        };
        std::thread::Builder::new().name("input".to_owned()).spawn(copy)?;
    }
    let outcome = show(&mut stream, &left);
    drop(raw);
    outcome
}

/// Prints the output until the program ends.
fn show(stream: &mut UnixStream, left: &AtomicBool) -> io::Result<Outcome> {
    loop {
        let frame = match receive(stream) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            frame => frame?,
        };
        let printed = match frame {
            Some(Frame::Output(data)) => print(&mut io::stdout().lock(), &data),
            Some(Frame::Errors(data)) => print(&mut io::stderr().lock(), &data),
            Some(Frame::Ended(code)) => return Ok(Outcome::Ended(code)),
            Some(Frame::Failed(code, why)) => return Ok(Outcome::Failed(code, why)),
            Some(_) => Ok(()),
            None if left.load(Ordering::Acquire) => return Ok(Outcome::Detached),
            None => return Ok(Outcome::Lost),
        };
        match printed {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(Outcome::Ended(UNREAD));
            }
            printed => printed?,
        }
    }
}

fn print(to: &mut impl Write, data: &[u8]) -> io::Result<()> {
    to.write_all(data)?;
    to.flush()
}

/// Sends the standard input until it ends, or the user leaves.
fn send_input(to: &mut UnixStream, may_leave: Option<&AtomicBool>) -> io::Result<()> {
    let mut stdin = io::stdin().lock();
    let mut buf = vec![0; PART];
    let mut held = false;
    loop {
        let read = match stdin.read(&mut buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let data = buf.get(..read).unwrap_or_default();
        if data.is_empty() {
            return send(to, &Frame::InputEnd);
        }
        let Some(left) = may_leave else {
            send(to, &Frame::Input(data.to_vec()))?;
            continue;
        };
        let (passed, leaves) = pass(data, &mut held);
        if !passed.is_empty() {
            send(to, &Frame::Input(passed))?;
        }
        if leaves {
            left.store(true, Ordering::Release);
            return to.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The input that is passed on, and whether the user leaves. The first of the two keys is held
/// back until the next one is known.
fn pass(data: &[u8], held: &mut bool) -> (Vec<u8>, bool) {
    let [first, second] = DETACH;
    let mut passed = Vec::new();
    for byte in data {
        match (*held, *byte) {
            (true, byte) if byte == second => return (passed, true),
            (true, byte) => {
                passed.push(first);
                *held = byte == first;
                passed.extend((byte != first).then_some(byte));
            }
            (false, byte) if byte == first => *held = true,
            (false, byte) => passed.push(byte),
        }
    }
    (passed, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_leave_and_each_alone_is_input() {
        let mut held = false;
        assert_eq!(pass(b"a\x11\x10", &mut held), (b"a\x11".to_vec(), false));
        assert_eq!(pass(b"b\x10\x10", &mut held), (b"\x10b\x10".to_vec(), false));
        assert_eq!(pass(b"\x11c", &mut held), (Vec::new(), true));
    }
}
