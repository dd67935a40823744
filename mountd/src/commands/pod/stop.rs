//! `lamina pod stop`.

use std::time::{Duration, Instant};

use clap::Args;

use super::{Context, failed};
use crate::kube::meta::text;
use crate::kube::objects::Store;
use crate::kube::pods::manage::supervised;
use crate::kube::pods::source::pod as pod_of;
use crate::kube::pods::{self, Home, Plan};
use crate::report::{CliError, say};

/// Between two looks at the process that holds the pod.
const LOOK: Duration = Duration::from_millis(50);

/// How long the process of the pod has after the grace: for mounts, volumes and files.
const MORE: Duration = Duration::from_secs(60);

/// How often a pod is asked to end whose process is killed meanwhile.
const TRIES: usize = 4;

/// Arguments of `lamina pod stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// How long the containers have to end, in seconds [default: as the pod says].
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u64>,
    /// The name of the pod.
    pod: String,
}

/// A request to end a pod.
struct Request<'a> {
    context: &'a Context,
    args: &'a StopArgs,
    home: &'a Home,
    /// How long its process is waited for.
    patience: Duration,
    /// When that is over; `None` for a time that no clock reaches.
    deadline: Option<Instant>,
}

impl Request<'_> {
    fn ask(&self) -> Result<(), CliError> {
        match self.home.ask_to_stop(self.args.grace_period) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(CliError::Io { what: format!("pod {:?}", self.args.pod), error })
            }
            // Without its directory it has just ended.
            _ => Ok(()),
        }
    }

    /// Waits until no process holds the pod.
    fn wait(&self) -> Result<(), CliError> {
        self.ask()?;
        while self.home.is_held() {
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let (pod, seconds) = (&self.args.pod, self.patience.as_secs());
                return Err(CliError::Pod(format!(
                    "pod {pod:?} has not ended within {seconds}s: its process still holds it, and \
                     kubectl describe pod says what it does"
                )));
            }
            // A start forgets requests. An end does too, but the pod is not started any more then.
            if self.home.stop_grace().is_none() && self.home.was_started() {
                self.ask()?;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Ends a pod that was started. One whose process was killed gets a new one, which sees what
    /// became of the pod; the daemon may have started another one before.
    fn carry_out(&self) -> Result<(), CliError> {
        let (context, pod) = (self.context, &self.args.pod);
        let mut last = None;
        for attempt in 0..=TRIES {
            if self.home.is_held() {
                self.wait()?;
            }
            if !self.home.was_started() {
                // One that came too late for the process is for nobody.
                let forgotten = self.home.forget_stop();
                return forgotten
                    .map_err(|error| CliError::Io { what: format!("pod {pod:?}"), error });
            }
            if attempt == TRIES {
                break;
            }
            let name = (&context.namespace[..], &pod[..]);
            let runtime_dir = context.runtime_dir.as_deref();
            last = supervised(&context.root, runtime_dir, name, &["--stop"]).err();
        }
        let why = last.map_or_else(
            || "what it left cannot be removed: see the log of lamina".to_owned(),
            |fault| fault.to_string(),
        );
        Err(CliError::Pod(format!("pod {pod:?} has not ended: {why}")))
    }
}

/// Whether the object of a pod is gone, as that of a deleted pod is with its end.
fn is_gone(store: &Store, name: (&str, &str), uid: &str) -> Result<bool, CliError> {
    match pod_of(store, name) {
        Ok(pod) => Ok(text(&pod, "/metadata/uid") != uid),
        Err(failure) if failure.code == 404 => Ok(true),
        Err(failure) => Err(failed(failure)),
    }
}

/// Runs the command, and returns when the pod has ended.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &StopArgs) -> Result<(), CliError> {
    let (store, volumes) = (context.store()?, context.volumes()?);
    let name = (&context.namespace[..], &args.pod[..]);
    let pod = pod_of(&store, name).map_err(failed)?;
    let runtime_dir = context.runtime_dir.as_deref();
    let uid = text(&pod, "/metadata/uid").to_owned();
    let home = Home::new(&context.root, runtime_dir, &uid);
    let home = home.map_err(|error| CliError::Io { what: format!("pod {:?}", args.pod), error })?;
    let was_used = home.is_held() || home.was_started();
    let grace = args.grace_period.map(Duration::from_secs);
    let patience = grace.unwrap_or_else(|| Plan::of(pod).grace()).saturating_add(MORE);
    let deadline = Instant::now().checked_add(patience);
    Request { context, args, home: &home, patience, deadline }.carry_out()?;
    // What only mounts a pod may have held it until now.
    let place = (&store, &volumes, runtime_dir);
    if !is_gone(&store, name, &uid)? && !pods::unmount(place, name).map_err(failed)? && !was_used {
        let text = format!("pod {:?} is neither running nor mounted", args.pod);
        return Err(CliError::Pod(text));
    }
    say(&format!("{}\n", args.pod))
}
