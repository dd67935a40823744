//! The process that holds a container: it mounts it, runs its program under crun, keeps the output,
//! and passes output, input and signals between the program and the clients.
//!
//! It outlives the command that started it. All follows from one rule, as with pods: it takes the
//! lock of the container first and reads the container then. A container whose last run has not
//! ended and whose lock is free has lost its process; the next command ends that run
//! ([`super::ended::repair`]).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use laminafs::service::containers::ContainerInfo;
use laminafs::service::images::Images;
use laminafs::service::process::{Signals, receive_with};
use laminafs::types::{Network, Program, Run, RunState};
use serde_json::json;

use super::clients::{Clients, Event, Refusal, Tee, listen};
use super::crun::{Crun, has_begun, said};
use super::ended::{EndError, clear, judge, now, remove_socket};
use super::files::{OF_HOST, make_dir, write_of_host};
use super::launch::{Launch, PATH, capabilities, own_capabilities};
use super::lock::Locked;
use super::logs::{Log, pump};
use super::own::mount_container;
use super::place::Place;
use super::user::resolve;
use super::wire::Frame;
use crate::report::NOT_STARTED;

/// Between two looks whether the program has begun.
const LOOK: Duration = Duration::from_millis(10);
/// How long the command that started the process may take to attach.
const ATTACH: Duration = Duration::from_secs(10);
/// How long the program may take to end when the process itself is to end.
const GRACE: Duration = Duration::from_secs(10);
/// The exit code for an error before the program.
pub const REFUSED: u8 = NOT_STARTED;

/// Which container is held.
#[derive(Debug)]
pub struct Setup {
    /// The data root.
    pub root: PathBuf,
    /// The runtime directory.
    pub runtime: Option<PathBuf>,
    /// The name or id of the container.
    pub name: String,
    /// Whether the program begins when a client is there for its output.
    pub waits: bool,
}

/// A program that did not begin.
#[derive(Debug)]
pub struct Refused {
    /// The exit code.
    pub code: u8,
    /// The reason.
    pub why: String,
}

impl Refused {
    fn new(why: impl ToString) -> Self {
        Self { code: REFUSED, why: why.to_string() }
    }
}

impl From<EndError> for Refused {
    fn from(error: EndError) -> Self {
        Self::new(error)
    }
}

fn failed(what: &str) -> impl Fn(io::Error) -> Refused + '_ {
    move |error| Refused::new(format!("{what}: {error}"))
}

/// A held container.
pub struct Holder {
    setup: Setup,
    images: Images,
    info: ContainerInfo,
    program: Program,
    place: Place,
    crun: Crun,
    clients: Arc<Clients>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    run: Run,
    _held: File,
}

/// A program that runs.
struct Begun {
    pumps: Vec<JoinHandle<()>>,
    refusal: Arc<Refusal>,
    /// Signals that came before the program.
    waiting: Vec<i32>,
    has_begun: bool,
}

impl Holder {
    /// Takes the right to run a container, ends what an earlier process left, and mounts it.
    ///
    /// # Errors
    /// [`Refused`], also while another process holds it.
    pub fn take(setup: Setup) -> Result<Self, Refused> {
        let images = Images::open(&setup.root).map_err(Refused::new)?;
        let runtime = setup.runtime.as_deref();
        let find = || images.container(&setup.name, runtime).map_err(Refused::new);
        let place = Place::new(&find()?, runtime);
        let held = match place.lock().map_err(failed("the lock of the container"))? {
            Locked::Taken(held) => held,
            Locked::Busy => {
                let text = "it runs already, or another command copies from it or to it";
                return Err(Refused::new(text));
            }
            Locked::Gone => {
                return Err(Refused::new("it was removed"));
            }
        };
        let info = find()?;
        let Some(program) = info.program.clone() else {
            return Err(Refused::new("it has no program"));
        };
        if info.run.as_ref().is_some_and(|run| run.state == RunState::Running) {
            clear(&images, &place, runtime)?;
        }
        let (sender, events) = channel();
        let crun = place.crun();
        let (state, started) = (RunState::Running, now());
        let run = Run { state, started, finished: None, exit_code: None, error: None };
        images.note_run(&info.id, &run).map_err(Refused::new)?;
        let clients = Arc::default();
        let taken = Self {
            setup,
            images,
            info,
            program,
            place,
            crun,
            clients,
            events,
            sender,
            run,
            _held: held,
        };
        match taken.prepare() {
            Ok(()) => Ok(taken),
            Err(refused) => Err(taken.end_with(refused)),
        }
    }

    /// Ends a run that did not begin.
    fn end_with(mut self, refused: Refused) -> Refused {
        self.finish(refused.code, Some(refused.why.clone()));
        refused
    }

    fn prepare(&self) -> Result<(), Refused> {
        make_dir(self.place.run()).map_err(failed("the runtime directory"))?;
        let socket = self.place.socket();
        remove_socket(&socket).map_err(failed("the socket of the container"))?;
        let listener =
            UnixListener::bind(&socket).map_err(failed("the socket of the container"))?;
        listen(listener, &self.clients, &self.sender).map_err(failed("starting a thread"))
    }

    /// A function that ends the container, for a signal to this process.
    pub fn watch_signals(&self, signals: Signals) -> io::Result<()> {
        let sender = self.sender.clone();
        let watch = move || {
            loop {
                let _ended: i32 = signals.wait();
                drop(sender.send(Event::End));
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop)
    }

    /// Runs the program to its end. `begun` is called when it has begun, or when a client is waited
    /// for.
    ///
    /// # Errors
    /// [`Refused`] if it did not begin; clients are told too.
    pub fn run(mut self, begun: Box<dyn FnOnce()>) -> Result<u8, Refused> {
        let mut begun = Some(begun);
        let mut ready = Ok(());
        if self.setup.waits {
            tell(&mut begun);
            ready = self.await_client();
        }
        let mut running = match ready.and_then(|()| self.begin()) {
            Ok(running) => running,
            Err(refused) => {
                self.conclude(Err(&refused));
                return Err(refused);
            }
        };
        let code = self.wait(&mut running, &mut begun);
        if let Err(error) = self.crun.delete(self.place.id()) {
            tracing::warn!(%error, "what the runtime left");
        }
        self.clients.end_input();
        for pump in running.pumps.drain(..) {
            if pump.join().is_err() {
                tracing::error!("a thread that copied output failed");
            }
        }
        let refusal = running.refusal.text();
        let logged = said(&self.place.bundle());
        let is_refused = !refusal.is_empty() || (!running.has_begun && code != 0);
        let why = if refusal.is_empty() { logged } else { refusal };
        if !is_refused {
            self.conclude(Ok(code));
            return Ok(code);
        }
        let why = if why.is_empty() { format!("the runtime ended with code {code}") } else { why };
        let refused = Refused { code: judge(&why), why };
        self.conclude(Err(&refused));
        Err(refused)
    }

    /// Waits for a client. Signals that come before it are for the program.
    fn await_client(&self) -> Result<(), Refused> {
        let deadline = Instant::now() + ATTACH;
        let mut early = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Attached) => break,
                Ok(event) => early.push(event),
                Err(_) => return Err(Refused::new("the command that started the container ended")),
            }
        }
        early.into_iter().for_each(|event| drop(self.sender.send(event)));
        Ok(())
    }

    /// Waits until the runtime has ended, and returns its exit code.
    fn wait(&mut self, running: &mut Begun, begun: &mut Option<Box<dyn FnOnce()>>) -> u8 {
        let mut kill_at: Option<Instant> = None;
        loop {
            if !running.has_begun && has_begun(&self.place.bundle()) {
                running.has_begun = true;
                running.waiting.drain(..).for_each(|signal| self.kill(&signal.to_string()));
                tell(begun);
            }
            let pause = if running.has_begun { GRACE } else { LOOK };
            let pause =
                kill_at.map_or(pause, |at| pause.min(at.saturating_duration_since(Instant::now())));
            match self.events.recv_timeout(pause) {
                Ok(Event::Exited(code)) => {
                    running.has_begun |= has_begun(&self.place.bundle());
                    if running.has_begun {
                        tell(begun);
                    }
                    return code;
                }
                Ok(Event::Signal(signal)) if running.has_begun => self.kill(&signal.to_string()),
                Ok(Event::Signal(signal)) => running.waiting.push(signal),
                Ok(Event::End) => {
                    self.kill(self.stop_signal());
                    kill_at.get_or_insert(Instant::now() + GRACE);
                }
                Ok(Event::Attached) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return REFUSED,
            }
            if kill_at.is_some_and(|at| Instant::now() >= at) {
                self.kill("KILL");
                kill_at = Some(Instant::now() + GRACE);
            }
        }
    }

    fn stop_signal(&self) -> &str {
        match &self.program.stop_signal[..] {
            "" => "TERM",
            signal => signal,
        }
    }

    fn kill(&self, signal: &str) {
        if let Err(error) = self.crun.kill(self.place.id(), signal) {
            tracing::debug!(%error, signal, "a signal to a container");
        }
    }

    /// Notes the end and tells the clients of it.
    fn conclude(&mut self, done: Result<u8, &Refused>) {
        let (code, why) = match done {
            Ok(code) => (code, None),
            Err(refused) => (refused.code, Some(refused.why.clone())),
        };
        self.clients.end_input();
        self.finish(code, why.clone());
        self.clients.send(&match why {
            None => Frame::Ended(code),
            Some(why) => Frame::Failed(code, why),
        });
    }

    /// Unmounts the container, notes the end, and removes what is to go with it.
    fn finish(&mut self, code: u8, error: Option<String>) {
        let runtime = self.setup.runtime.as_deref();
        if let Err(error) = clear(&self.images, &self.place, runtime) {
            tracing::error!(%error, container = %self.info.name, "the end of a run");
        }
        self.run = Run {
            state: RunState::Exited,
            finished: Some(now()),
            exit_code: Some(code),
            error,
            ..self.run.clone()
        };
        let noted = self.images.note_run(&self.info.id, &self.run);
        let removed = noted.and_then(|()| match self.program.remove {
            true => self.images.remove_container(&self.info.id),
            false => Ok(()),
        });
        if let Err(error) = removed {
            tracing::error!(%error, container = %self.info.name, "the end of a run");
        }
    }

    /// Mounts the container and starts its program.
    fn begin(&self) -> Result<Begun, Refused> {
        let at = self.place.make_mount_point().map_err(failed("the mount point"))?;
        let root = mount_container(&self.setup.root, &self.info.id, &at).map_err(Refused::new)?;
        let launch = self.launch(&root)?;
        let bundle = self.place.bundle();
        self.crun.clear(&bundle, &[]).map_err(failed("the bundle"))?;
        let console = match self.program.terminal {
            true => Some(self.console().map_err(failed("the socket of the terminal"))?),
            false => None,
        };
        let at = self.place.console();
        let command = self.crun.run(&bundle, &launch, console.is_some().then_some(&*at));
        let mut command = command.map_err(failed("the bundle"))?;
        let has_input = self.program.stdin && console.is_none();
        command.stdin(if has_input { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let log = Log::begin(&self.place.logs()).map_err(failed("the log"))?;
        let log = Arc::new(Mutex::new(log));
        let mut child = command.spawn().map_err(failed("starting crun"))?;
        match child.stdin.take() {
            Some(stdin) => self.clients.feed(stdin),
            None if self.program.terminal => {}
            None => self.clients.end_input(),
        }
        let refusal = Arc::new(Refusal::new(bundle));
        let has_ended = Arc::<AtomicBool>::default();
        let mut begun = Begun { pumps: Vec::new(), refusal, waiting: Vec::new(), has_begun: false };
        if let Some(listener) = console {
            match terminal(&listener, &mut child) {
                Ok(Some(terminal)) => {
                    self.clients.feed_terminal(&terminal).map_err(failed("the terminal"))?;
                    let has_ended = Arc::clone(&has_ended);
                    let terminal = Terminal { file: terminal, has_ended };
                    self.copy(&mut begun, terminal, ("terminal", Frame::Output), &log)?;
                }
                // crun failed: what it says tells why.
                Ok(None) => {}
                Err(error) => return Err(failed("the terminal")(error)),
            }
        }
        if let Some(stdout) = child.stdout.take() {
            self.copy(&mut begun, stdout, ("stdout", Frame::Output), &log)?;
        }
        if let Some(stderr) = child.stderr.take() {
            self.copy(&mut begun, stderr, ("stderr", Frame::Errors), &log)?;
        }
        let sender = self.sender.clone();
        let watching = std::thread::Builder::new().name("container".to_owned());
        let watching = watching.spawn(move || {
            let code = exit_code(child);
            has_ended.store(true, Ordering::Release);
            drop(sender.send(Event::Exited(code)));
        });
        watching.map_err(failed("starting a thread"))?;
        Ok(begun)
    }

    fn console(&self) -> io::Result<UnixListener> {
        let at = self.place.console();
        remove_socket(&at)?;
        let listener = UnixListener::bind(at)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Copies a stream to the log and to the clients, on a thread.
    fn copy(
        &self,
        begun: &mut Begun,
        from: impl Read + Send + 'static,
        (name, frame): (&'static str, fn(Vec<u8>) -> Frame),
        log: &Arc<Mutex<Log>>,
    ) -> Result<(), Refused> {
        let tee = Tee::new(from, Arc::clone(&self.clients), frame, Arc::clone(&begun.refusal));
        let log = Arc::clone(log);
        let stream = if name == "terminal" { "stdout" } else { name };
        let thread = std::thread::Builder::new().name(name.to_owned());
        let pump = thread.spawn(move || pump(tee, stream, &log)).map_err(failed("a thread"))?;
        begun.pumps.push(pump);
        Ok(())
    }

    fn launch(&self, root: &Path) -> Result<Launch, Refused> {
        let program = &self.program;
        let hostname = match &program.hostname[..] {
            "" => self.info.id.get(..12).unwrap_or(&self.info.id),
            name => name,
        };
        let user = resolve(root, &program.user, (None, None)).map_err(Refused::new)?;
        let mut env = program.env.clone();
        let mut default = |name: &str, value: &str| {
            if !env.iter().any(|one| one.strip_prefix(name).is_some_and(|of| of.starts_with('='))) {
                env.push(format!("{name}={value}"));
            }
        };
        default("PATH", PATH.trim_start_matches("PATH="));
        default("HOSTNAME", hostname);
        default("HOME", user.home.as_deref().unwrap_or("/"));
        if program.terminal {
            default("TERM", "xterm");
        }
        let mut launch = Launch {
            id: self.place.id().to_owned(),
            root: root.to_owned(),
            args: program.args.clone(),
            env,
            cwd: if program.workdir.is_empty() { "/".to_owned() } else { program.workdir.clone() },
            user,
            hostname: hostname.to_owned(),
            binds: Vec::new(),
            read_only: program.read_only,
            may_gain: true,
            is_privileged: false,
            capabilities: capabilities(self.crun.has_cgroups, own_capabilities(), |_, usual| usual),
            of_host: [false, false],
            resources: json!({}),
            is_offline: program.network == Network::None,
            has_terminal: program.terminal,
            badness: 0,
        };
        let files = self.place.files();
        make_dir(&files)
            .and_then(|()| write_of_host(&files, hostname, "127.0.0.1"))
            .map_err(failed("the files of the container"))?;
        for file in OF_HOST {
            let target = format!("/etc/{file}");
            // A graft is in the tree already.
            if !self.info.grafts.iter().any(|graft| graft.ends_with(&format!(" at {target}"))) {
                launch.add_file(files.join(file), &target);
            }
        }
        Ok(launch)
    }
}

fn tell(begun: &mut Option<Box<dyn FnOnce()>>) {
    if let Some(begun) = begun.take() {
        begun();
    }
}

/// The other side of the terminal of a container; `None` if its runtime ends without sending it.
fn terminal(listener: &UnixListener, child: &mut Child) -> io::Result<Option<File>> {
    loop {
        match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                let mut name = [0; 256];
                let (_, sent) = receive_with(&stream, &mut name)?;
                return Ok(sent.map(File::from));
            }
        }
        if child.try_wait()?.is_some() {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// The other side of a terminal. The kernel reports an error while no process has this side open:
/// before the program has opened it too, so only an error after the end of the program is the end.
struct Terminal {
    file: File,
    has_ended: Arc<AtomicBool>,
}

impl Read for Terminal {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let is_closed =
            |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
        loop {
            // Asked first: what was written before the end is read then.
            let has_ended = self.has_ended.load(Ordering::Acquire);
            match self.file.read(buf) {
                Err(error) if is_closed(&error) && has_ended => return Ok(0),
                Err(error) if is_closed(&error) => std::thread::sleep(LOOK),
                read => return read,
            }
        }
    }
}

/// Waits for a process. A signal that ended it makes the code 128 and its number.
pub fn exit_code(mut child: Child) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    match child.wait() {
        Ok(status) => {
            let of_signal = || status.signal().map_or(255, |signal| 128 + signal);
            u8::try_from(status.code().unwrap_or_else(of_signal)).unwrap_or(u8::MAX)
        }
        Err(error) => {
            tracing::error!(%error, "waiting for a container");
            u8::MAX
        }
    }
}
