//! `lamina pod start`.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::{Context, failed};
use crate::kube::kinds::Kind;
use crate::kube::meta::{is_ending, text};
use crate::kube::objects::{ListOptions, Store};
use crate::kube::pods::ends::sweep;
use crate::kube::pods::manage::supervised;
use crate::kube::pods::source::pod as pod_of;
use crate::kube::pods::{Home, Runtime};
use crate::report::{CliError, say};

/// How long the containers are waited for.
const WAIT: Duration = Duration::from_secs(60);
/// Between two looks at the pod.
const LOOK: Duration = Duration::from_millis(50);

/// How long no process may hold the pod until it is taken as stopped.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// Arguments of `lamina pod start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The program that runs the containers.
    #[arg(long, value_enum, default_value_t)]
    runtime: Runtime,
    /// The name of the pod.
    pod: String,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`]; a pod that could not begin goes on trying.
pub(super) fn run(context: &Context, args: &StartArgs) -> Result<(), CliError> {
    let store = context.store()?;
    let runtime_dir = context.runtime_dir.as_deref();
    sweep(&store, &context.volumes()?, runtime_dir).map_err(failed)?;
    let name = (&context.namespace[..], &args.pod[..]);
    let before = pod_of(&store, name).map_err(failed)?;
    let words = ["--again", "--runtime", args.runtime.name()];
    let since = store.version().map_err(failed)?;
    supervised(&context.root, runtime_dir, name, &words).map_err(failed)?;
    let deadline = Instant::now() + WAIT;
    let uid = text(&before, "/metadata/uid");
    let home = Home::new(&context.root, runtime_dir, uid);
    let home = home.map_err(|error| CliError::Io { what: format!("pod {:?}", args.pod), error })?;
    let mut held = Instant::now();
    loop {
        if home.is_held() {
            held = Instant::now();
        }
        let pod = pod_of(&store, name).map_err(failed)?;
        if text(&pod, "/metadata/uid") != uid {
            return Err(CliError::Pod(format!("pod {:?} was deleted", args.pod)));
        }
        if is_ending(&pod) {
            return Err(CliError::Pod(format!("pod {:?} is being deleted", args.pod)));
        }
        let phase = text(&pod, "/status/phase");
        if let Some(why) = trouble(&store, &pod, since) {
            return Err(CliError::Pod(format!(
                "pod {:?} cannot begin yet: {why}; it keeps trying until lamina pod stop",
                args.pod
            )));
        }
        let is_written = text(&pod, "/metadata/resourceVersion")
            .parse::<u64>()
            .is_ok_and(|version| version > since);
        let is_stopped = text(&pod, "/status/reason") == "Stopped";
        if phase != "Pending" && is_written && !is_stopped {
            return say(&format!("{}  {phase}\n", args.pod));
        }
        // While a process holds the pod, that may be the status of the run before.
        let is_over = is_stopped && is_written && !home.is_held();
        // It may end before it writes any status.
        if is_over || held.elapsed() >= GIVEN_UP {
            return Err(CliError::Pod(format!("pod {:?} was stopped meanwhile", args.pod)));
        }
        if Instant::now() >= deadline {
            let text = format!("pod {:?} has not begun: see kubectl describe pod", args.pod);
            return Err(CliError::Pod(text));
        }
        std::thread::sleep(LOOK);
    }
}

/// Why a pod does not begin, by its last events.
fn trouble(store: &Store, pod: &Value, since: u64) -> Option<String> {
    let kind = Kind::of_record("events")?;
    let uid = text(pod, "/metadata/uid");
    let events = store.list(kind, &ListOptions::default()).ok()?.items;
    let found = events.iter().find(|event| {
        let version = text(event, "/metadata/resourceVersion").parse::<u64>();
        text(event, "/involvedObject/uid") == uid
            && version.is_ok_and(|version| version > since)
            && matches!(text(event, "/reason"), "FailedMount" | "Failed" | "ErrImageNeverPull")
    });
    found.map(|event| text(event, "/message").to_owned())
}
