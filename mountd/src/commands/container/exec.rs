//! `lamina container exec`.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::{Child, ExitCode, Stdio};

use clap::Args;
use laminafs::service::containers::ContainerInfo;
use laminafs::service::process::Signals;
use laminafs::types::{Program, RunState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::Context;
use super::run::add_variables;
use crate::container::attach::hold_signals;
use crate::container::crun::said_in;
use crate::container::ended::judge;
use crate::container::files::{make_dir, write};
use crate::container::hold::exit_code;
use crate::container::launch::{PATH, capabilities, held, own_capabilities};
use crate::container::place::Place;
use crate::container::user::resolve;
use crate::report::CliError;

/// Arguments of `lamina container exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Pass on the standard input.
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal.
    #[arg(short, long)]
    tty: bool,
    /// Set a variable; without a value, to that of the command.
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The user, by names or numbers [default: that of the container].
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The working directory [default: that of the container].
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The container, and the command.
    #[arg(required = true, num_args = 2.., trailing_var_arg = true)]
    #[arg(value_names = ["NAME", "COMMAND"])]
    words: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &ExecArgs) -> Result<ExitCode, CliError> {
    let (name, words) = args.words.split_first().map_or(("", &[][..]), |(a, b)| (&a[..], b));
    let of = context.images.container(name, context.runtime.as_deref())?;
    let place = Place::new(&of, context.runtime.as_deref());
    let is_running = of.run.as_ref().is_some_and(|run| run.state == RunState::Running);
    let (Some(program), true) = (&of.program, is_running && place.is_held()) else {
        let text = format!("container {name:?} does not run: start it with lamina container start");
        return Err(CliError::Container(text));
    };
    let io = |what: &str| {
        let what = format!("{what} of container {name:?}");
        move |error| CliError::Io { what, error }
    };
    let process = process(args, (&of, program), words)?;
    let files = Files::write(&place, &process).map_err(io("the files for a program"))?;
    let crun = place.crun();
    let mut command = crun.command();
    command.arg("--log").arg(&files.log).args(["--log-format", "json", "exec", "--process"]);
    command.arg(&files.process).arg(place.id());
    command.stdin(if args.interactive { Stdio::inherit() } else { Stdio::null() });
    let child = command.spawn().map_err(io("starting crun for a program"))?;
    let signals = hold_signals(false).map_err(io("signals for a program"))?;
    pass_signals(&child, signals).map_err(io("signals for a program"))?;
    let code = exit_code(child);
    // It has printed this too.
    let said = said_in(&files.log);
    Ok(ExitCode::from(if said.is_empty() { code } else { judge(&said) }))
}

/// The program, in the form of the OCI runtime.
fn process(
    args: &ExecArgs,
    (of, program): (&ContainerInfo, &Program),
    words: &[String],
) -> Result<Value, CliError> {
    let Some(root) = &of.mountpoint else {
        let text = format!("container {:?} is not mounted", of.name);
        return Err(CliError::Container(text));
    };
    let user = args.user.as_ref().unwrap_or(&program.user);
    let user = resolve(root, user, (None, None));
    let user = user.map_err(|error| CliError::Container(error.to_string()))?;
    let mut env = vec![PATH.to_owned()];
    env.push(format!("HOME={}", user.home.as_deref().unwrap_or("/")));
    if args.tty {
        env.push("TERM=xterm".to_owned());
    }
    add_variables(&mut env, &program.env);
    add_variables(&mut env, &args.env);
    let workdir = args.workdir.as_ref().unwrap_or(&program.workdir);
    let has_cgroups = crate::container::crun::has_cgroups();
    Ok(json!({
        "terminal": args.tty,
        "user": user.of_runtime(),
        "args": words,
        "env": env,
        "cwd": if workdir.is_empty() { "/" } else { workdir },
        "capabilities": held(&capabilities(has_cgroups, own_capabilities(), |_, usual| usual)),
    }))
}

/// Files that go when the command ends.
struct Files {
    process: PathBuf,
    log: PathBuf,
}

impl Files {
    fn write(place: &Place, process: &Value) -> io::Result<Self> {
        make_dir(place.run())?;
        let name = format!("exec-{}", std::process::id());
        let at = place.run().join(&name);
        let found = Self { process: at.with_extension("json"), log: at.with_extension("log") };
        write(&found.process, &process.to_string(), 0o600)?;
        Ok(found)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in [&self.process, &self.log] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(%error, path = %path.display(), "a file stays");
                }
                _ => {}
            }
        }
    }
}

/// Passes signals to the runtime, which passes them to the program. Those of the keyboard reach it
/// without that.
fn pass_signals(child: &Child, signals: Signals) -> io::Result<()> {
    let has_keyboard = io::stdin().is_terminal();
    let of_keyboard = [Signal::INT, Signal::QUIT].map(Signal::as_raw);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pass = move || {
        loop {
            let number = signals.wait();
            let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number)) else { continue };
            if has_keyboard && of_keyboard.contains(&number) {
                continue;
            }
            if let Err(error) = kill_process(pid, signal) {
                tracing::debug!(%error, "a signal was not passed on");
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(pass).map(drop)
}
