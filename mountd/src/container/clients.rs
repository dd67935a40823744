//! The clients of the process that holds a container: they get its output and send its input.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ChildStdin;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::termios::{Winsize, tcsetwinsize};

use super::crun::has_begun;
use super::ended::EXEC;
use super::wire::{Frame, receive, send};

/// The character that ends the input of a terminal at the start of a line.
const END_OF_INPUT: u8 = 4;

/// What happens to a container.
#[derive(Debug)]
pub enum Event {
    /// A client is there for the output.
    Attached,
    /// A client sends a signal.
    Signal(i32),
    /// The runtime ended with an exit code.
    Exited(u8),
    /// The process itself is to end.
    End,
}

/// The input of the program.
#[derive(Debug, Default)]
enum Input {
    /// The program has not begun: what clients send waits for it.
    #[default]
    Waiting,
    /// There is none, or it has ended.
    None,
    Pipe(ChildStdin),
    Terminal(File),
}

/// What the threads of all connections share.
#[derive(Debug, Default)]
pub struct Clients {
    outputs: Mutex<Vec<UnixStream>>,
    input: Mutex<Input>,
    fed: Condvar,
    terminal: Mutex<(Option<File>, Option<Winsize>)>,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    /// Sends a frame to all that attached. One that is gone is dropped.
    pub fn send(&self, frame: &Frame) {
        locked(&self.outputs).retain_mut(|client| send(client, frame).is_ok());
    }

    /// Gives the input of clients to a pipe.
    pub fn feed(&self, stdin: ChildStdin) {
        self.set_input(Input::Pipe(stdin));
    }

    /// Gives the input of clients to a terminal, whose size is that of the last client.
    ///
    /// # Errors
    /// As dup(2).
    pub fn feed_terminal(&self, other_side: &File) -> io::Result<()> {
        let mut terminal = locked(&self.terminal);
        if let Some(size) = terminal.1 {
            tcsetwinsize(other_side, size)?;
        }
        terminal.0 = Some(other_side.try_clone()?);
        self.set_input(Input::Terminal(other_side.try_clone()?));
        Ok(())
    }

    /// Ends the input.
    pub fn end_input(&self) {
        self.set_input(Input::None);
    }

    fn set_input(&self, input: Input) {
        *locked(&self.input) = input;
        self.fed.notify_all();
    }

    /// The input of a program that has begun, or that has none.
    fn input(&self) -> MutexGuard<'_, Input> {
        let is_waiting = |input: &mut Input| matches!(input, Input::Waiting);
        let waited = self.fed.wait_while(locked(&self.input), is_waiting);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn take_input(&self, data: &[u8]) {
        let mut input = self.input();
        let written = match &mut *input {
            Input::Waiting | Input::None => Ok(()),
            Input::Pipe(pipe) => pipe.write_all(data).and_then(|()| pipe.flush()),
            Input::Terminal(terminal) => terminal.write_all(data),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "input of a container");
            *input = Input::None;
        }
    }

    fn take_end(&self) {
        let mut input = self.input();
        match &mut *input {
            Input::Terminal(terminal) => {
                if let Err(error) = terminal.write_all(&[END_OF_INPUT]) {
                    tracing::debug!(%error, "input of a container");
                }
            }
            _ => *input = Input::None,
        }
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let mut terminal = locked(&self.terminal);
        terminal.1 = Some(size);
        if let Some(file) = &terminal.0
            && let Err(error) = tcsetwinsize(file, size)
        {
            tracing::debug!(%error, "the size of a terminal");
        }
    }

    /// Serves a connection until it ends.
    fn serve(&self, mut from: UnixStream, events: &Sender<Event>) -> io::Result<()> {
        let mut is_attached = false;
        while let Some(frame) = receive(&mut from)? {
            match frame {
                Frame::Attach => {
                    locked(&self.outputs).push(from.try_clone()?);
                    is_attached = true;
                    drop(events.send(Event::Attached));
                }
                Frame::Input(data) => self.take_input(&data),
                Frame::InputEnd => self.take_end(),
                Frame::Signal(number) => drop(events.send(Event::Signal(number))),
                Frame::Size(rows, columns) => self.resize(rows, columns),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        let is_pipe = matches!(*self.input(), Input::Pipe(_));
        if is_attached && is_pipe {
            // The input of a client that is gone has ended.
            self.take_end();
        }
        Ok(())
    }
}

/// Serves all connections to a socket, each on a thread of its own.
///
/// # Errors
/// Of the start of a thread.
pub fn listen(
    listener: UnixListener,
    clients: &Arc<Clients>,
    events: &Sender<Event>,
) -> io::Result<()> {
    let (clients, events) = (Arc::clone(clients), events.clone());
    let accept = move || {
        for connection in listener.incoming() {
            let Ok(connection) = connection else { continue };
            let (clients, events) = (Arc::clone(&clients), events.clone());
            let serve = move || {
                if let Err(error) = clients.serve(connection, &events) {
                    tracing::debug!(%error, "a client of a container");
                }
            };
            let thread = std::thread::Builder::new().name("client".to_owned()).spawn(serve);
            if let Err(error) = thread {
                tracing::error!(%error, "starting a thread");
            }
        }
    };
    std::thread::Builder::new().name("accept".to_owned()).spawn(accept).map(drop)
}

/// A stream of a container that goes to its clients as it is read. What crun writes to it in the
/// place of a program that the kernel did not execute is kept instead.
pub struct Tee<R> {
    from: R,
    clients: Arc<Clients>,
    frame: fn(Vec<u8>) -> Frame,
    refusal: Arc<Refusal>,
    is_first: bool,
}

/// What crun wrote in the place of a program that did not begin.
#[derive(Debug)]
pub struct Refusal {
    text: Mutex<String>,
    bundle: PathBuf,
}

impl Refusal {
    /// None so far, for the container of a bundle.
    pub fn new(bundle: PathBuf) -> Self {
        Self { text: Mutex::default(), bundle }
    }

    /// The text; empty if there is none.
    pub fn text(&self) -> String {
        locked(&self.text).clone()
    }

    /// Whether a stream begins with what crun has to say; `is_of_runtime` is whether crun writes to
    /// it too.
    fn takes(&self, data: &[u8], is_of_runtime: bool) -> bool {
        let text = match refusal(data) {
            Some(text) => text,
            // A terminal shows what is typed before the program begins.
            None if !is_of_runtime || has_begun(&self.bundle) => return false,
            None => String::from_utf8_lossy(data.trim_ascii()).into_owned(),
        };
        *locked(&self.text) = text;
        true
    }
}

impl<R> Tee<R> {
    /// Sends what is read of a stream as frames, and keeps the refusal of the kernel.
    pub const fn new(
        from: R,
        clients: Arc<Clients>,
        frame: fn(Vec<u8>) -> Frame,
        refusal: Arc<Refusal>,
    ) -> Self {
        Self { from, clients, frame, refusal, is_first: true }
    }
}

/// The text of a message of crun about a program that the kernel did not execute.
fn refusal(data: &[u8]) -> Option<String> {
    let message: serde_json::Value = serde_json::from_slice(data.trim_ascii()).ok()?;
    let text = message.get("msg")?.as_str()?;
    text.starts_with(EXEC).then(|| text.to_owned())
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buf)?;
        let Some(data) = buf.get(..read).filter(|data| !data.is_empty()) else { return Ok(read) };
        let frame = (self.frame)(data.to_vec());
        let is_of_runtime = matches!(frame, Frame::Errors(_));
        if std::mem::take(&mut self.is_first) && self.refusal.takes(data, is_of_runtime) {
            return Ok(0);
        }
        self.clients.send(&frame);
        Ok(read)
    }
}
