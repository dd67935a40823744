//! `lamina volume holder`.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use laminafs::service::process::{self, EndSignals, Holder, Starter};
use laminafs::service::{Failure, Refusal};

use crate::report::CliError;
use crate::serve::notify;

/// The commands that serve what is mounted.
const COMMANDS: [&[&str]; 2] = [&["volume", "serve"], &["volume", "view"]];

/// Arguments of `lamina volume holder`.
#[derive(Debug, Args)]
pub struct HolderArgs {
    /// After SIGTERM, refuse requests and wait until no process serves a volume. Without it the
    /// holder ends at once. The processes go on in both cases.
    #[arg(long)]
    wait: bool,
    /// What is logged: error, warn, info, debug, trace, or a filter.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> CliError + '_ {
    move |error| CliError::Io { what: what.to_owned(), error }
}

/// Starts processes until a signal ends it.
///
/// # Errors
/// [`CliError`].
pub fn run(root: &Path, args: &HolderArgs) -> Result<ExitCode, CliError> {
    process::return_memory();
    crate::log::serve(&args.log)?;
    // From here on a signal ends the holder in order.
    let system = |what| move |error| Failure::System { what, error };
    let signals = EndSignals::block().map_err(system("blocking signals"))?;
    process::adopt_orphans().map_err(system("adopting processes"))?;
    let program = std::env::current_exe().map_err(failed("the path of this program"))?;
    let commands = COMMANDS.iter().map(|command| command.to_vec()).collect();
    let starter = Starter { program, commands, variables: variables() };
    std::fs::create_dir_all(root).map_err(failed("making the data root"))?;
    let holder = Holder::open(root, starter).map_err(Refusal::from)?;
    holder.start().map_err(failed("starting threads"))?;
    tracing::info!("holding the volumes of {}", root.display());
    notify::ready("holding");
    signals.wait();
    if args.wait {
        tracing::info!("ending: waiting until no volume is served");
        let waits = std::sync::Arc::clone(&holder);
        let thread = std::thread::Builder::new().name("end".to_owned());
        let waiting = thread.spawn(move || {
            waits.end();
            waits.await_children();
            close(&waits);
            std::process::exit(0);
        });
        waiting.map_err(failed("starting a thread"))?;
        // A second signal does not wait.
        signals.wait();
    }
    close(&holder);
    if !args.wait {
        holder.end();
    }
    tracing::info!("ended; the processes of volumes go on");
    Ok(ExitCode::SUCCESS)
}

fn close(holder: &Holder) {
    if let Err(error) = holder.close() {
        tracing::warn!(%error, "the socket stays");
    }
}

/// A process in the background writes its log where the holder does, if a log was asked for:
/// in a container it has no other place.
fn variables() -> Vec<(&'static str, String)> {
    let is_set = |name| std::env::var_os(name).is_some();
    if !is_set("LAMINA_LOG") || is_set("LAMINA_LOG_FILE") {
        return Vec::new();
    }
    vec![("LAMINA_LOG_FILE", format!("/proc/{}/fd/2", std::process::id()))]
}
