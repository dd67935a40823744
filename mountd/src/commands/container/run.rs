//! `lamina container run`.

use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use laminafs::service::containers::{ContainerInfo, NewContainer};
use laminafs::types::{ContainerName, Graft, GraftSource, Network, Program};
use serde_json::Value;

use super::{Context, LimitArgs};
use crate::args::graft;
use crate::commands::resolved;
use crate::container::attach::{Outcome, Part, attach};
use crate::container::place::Place;
use crate::options::OptionError;
use crate::report::{CliError, say, warn};

/// The network of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum NetworkArg {
    /// That of the host.
    #[default]
    Host,
    /// One of its own, without devices but the loopback.
    None,
}

/// Arguments of `lamina container run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The name of the container [default: the first digits of its id].
    #[arg(long)]
    name: Option<String>,
    /// Remove the container when its program ends.
    #[arg(long)]
    rm: bool,
    /// Keep the standard input of the program open, and pass on that of the command.
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal. Ctrl-P Ctrl-Q leaves it.
    #[arg(short, long)]
    tty: bool,
    /// Print the name and return when the program has begun.
    #[arg(short, long)]
    detach: bool,
    /// Set a variable; without a value, to that of the command.
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The working directory.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The user, by names or numbers.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The program, in the place of that of the image; `["PROGRAM","WORD"]` for several words.
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Show a named volume, or with a `/` a directory or file of the host, at a path.
    #[arg(short, long = "volume", value_name = "NAME|PATH:TARGET[:ro]")]
    volumes: Vec<OsString>,
    /// Show a file system in memory at a path.
    #[arg(long, value_name = "/PATH[:size=SIZE]")]
    tmpfs: Vec<OsString>,
    /// Any of these: type=bind|volume|tmpfs,source=,target=,readonly,volume-subpath=.
    #[arg(long = "mount", value_name = "SPEC")]
    mounts: Vec<OsString>,
    /// The name of the host in the container [default: the first digits of the id].
    #[arg(long)]
    hostname: Option<String>,
    /// Keep the root from being written; volumes are not concerned.
    #[arg(long)]
    read_only: bool,
    /// The network.
    #[arg(long, value_enum, default_value_t)]
    network: NetworkArg,
    /// The signal that asks the program to end [default: that of the image, or TERM].
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// The limits of what is written to it.
    #[command(flatten)]
    limits: LimitArgs,
    /// The image, and a command in the place of that of the image.
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    words: Vec<String>,
}

/// A graft of `-v`: a source with a slash, or that begins with a dot, is a path of the host.
fn volume(word: &OsStr) -> Result<Graft, OptionError> {
    let text = word.as_encoded_bytes();
    let source = text.split(|byte| *byte == b':').next().unwrap_or_default();
    if !source.contains(&b'/') && !source.starts_with(b".") {
        return graft::volume(word);
    }
    let mut found = graft::bind(word)?;
    let mut words = text.split(|byte| matches!(byte, b':' | b',')).skip(2);
    // As with other engines, mounts beneath the source are shown too.
    found.recursive = !words.any(|word| word == b"bind");
    Ok(absolute(found))
}

/// The graft with an absolute source: the process that mounts it leaves this directory.
fn absolute(mut graft: Graft) -> Graft {
    if let GraftSource::Bind(path) = &mut graft.source
        && let Ok(whole) = std::path::absolute(&*path)
    {
        *path = whole;
    }
    graft
}

fn grafts(args: &RunArgs) -> Result<Vec<Graft>, OptionError> {
    let volumes = args.volumes.iter().map(|word| volume(word));
    let tmpfs = args.tmpfs.iter().map(|word| graft::tmpfs(word));
    let mounts = args.mounts.iter().map(|word| graft::mount(word).map(absolute));
    volumes.chain(tmpfs).chain(mounts).collect()
}

fn list(config: &Value, pointer: &str) -> Vec<String> {
    let list = config.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The words of the program: an entry point of the user drops the command of the image.
fn words(args: &RunArgs, config: &Value) -> Vec<String> {
    let own = args.words.get(1..).unwrap_or_default();
    let (mut words, has_own_entry) = match &args.entrypoint {
        Some(text) if text.is_empty() => (Vec::new(), true),
        Some(text) => {
            let list = serde_json::from_str::<Vec<String>>(text);
            (list.unwrap_or_else(|_| vec![text.clone()]), true)
        }
        None => (list(config, "/config/Entrypoint"), false),
    };
    if own.is_empty() && !has_own_entry {
        words.extend(list(config, "/config/Cmd"));
    } else {
        words.extend(own.iter().cloned());
    }
    words
}

/// Adds variables to those of the image, each in the place of one of the same name.
pub(super) fn add_variables(env: &mut Vec<String>, more: &[String]) {
    for one in more {
        let (name, line) = match one.split_once('=') {
            Some((name, _)) => (name, Some(one.clone())),
            None => (&one[..], std::env::var(one).ok().map(|value| format!("{one}={value}"))),
        };
        let Some(line) = line else { continue };
        let is_same = |other: &String| other.split('=').next() == Some(name);
        match env.iter_mut().find(|other| is_same(other)) {
            Some(other) => *other = line,
            None => env.push(line),
        }
    }
}

fn program(args: &RunArgs, config: &Value) -> Result<Program, CliError> {
    let text = |pointer: &str| {
        config.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let words = words(args, config);
    if words.is_empty() {
        let what = "the image has no command: give one behind the name of the image";
        return Err(CliError::Usage(what.to_owned()));
    }
    let mut env = list(config, "/config/Env");
    add_variables(&mut env, &args.env);
    let signal = args.stop_signal.clone().unwrap_or_else(|| text("/config/StopSignal"));
    Ok(Program {
        args: words,
        env,
        workdir: args.workdir.clone().unwrap_or_else(|| text("/config/WorkingDir")),
        user: args.user.clone().unwrap_or_else(|| text("/config/User")),
        hostname: args.hostname.clone().unwrap_or_default(),
        read_only: args.read_only,
        network: match args.network {
            NetworkArg::Host => Network::Host,
            NetworkArg::None => Network::None,
        },
        terminal: args.tty,
        stdin: args.interactive,
        remove: args.rm,
        stop_signal: signal.trim_start_matches("SIG").to_owned(),
    })
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &RunArgs) -> Result<ExitCode, CliError> {
    let image = args.words.first().map(String::as_str).unwrap_or_default();
    let details = context.images.inspect(image)?;
    resolved::show(&context.images, image);
    let program = program(args, &details.config)?;
    let part = Part { input: program.stdin, terminal: program.terminal };
    let new = NewContainer {
        name: args.name.clone().map(ContainerName::try_from).transpose()?,
        image: image.to_owned(),
        grafts: grafts(args)?,
        limits: args.limits.limits()?,
        program: Some(program),
    };
    let name = context.images.create_container(new)?;
    let made = context.images.container(&name, context.runtime.as_deref())?;
    begin(context, &made, (!args.detach).then_some(part))
}

/// Runs the program of a container, and with a part stays until it ends.
///
/// # Errors
/// [`CliError`].
pub(super) fn begin(
    context: &Context,
    of: &ContainerInfo,
    part: Option<Part>,
) -> Result<ExitCode, CliError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |error| CliError::Io { what, error }
    };
    let exe = std::env::current_exe().map_err(io("this program"))?;
    let mut command = Command::new(exe);
    command.args(["container", "hold", &of.id]).args(part.map(|_| "--attach"));
    command.arg("--root").arg(&context.root).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(io("starting the process of the container"))?;
    if !status.success() {
        // It has said why.
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(ExitCode::from(code.unwrap_or(super::hold::REFUSED)));
    }
    let Some(part) = part else {
        say(&format!("{}\n", of.name))?;
        return Ok(ExitCode::SUCCESS);
    };
    let socket = Place::new(of, context.runtime.as_deref()).socket();
    follow(&of.name, attach(&socket, part).map_err(io("the process of the container"))?)
}

/// The exit code of the program, or why there is none.
pub(super) fn follow(name: &str, outcome: Outcome) -> Result<ExitCode, CliError> {
    match outcome {
        Outcome::Ended(code) => Ok(ExitCode::from(code)),
        Outcome::Failed(code, why) => {
            let error = Box::new(CliError::Container(format!("container {name:?}: {why}")));
            Err(CliError::Program { code, error })
        }
        Outcome::Detached => {
            warn(&format!("container {name:?} goes on; end it with lamina container stop"));
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Lost => Err(CliError::Container(format!(
            "the process that holds container {name:?} was killed; the next command of lamina \
             container ends what it left"
        ))),
    }
}
