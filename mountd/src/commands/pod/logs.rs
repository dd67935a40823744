//! `lamina pod logs`.

use clap::Args;

use super::{Context, failed};
use crate::container::logs::{Reader, Wanted, copy};
use crate::kube::meta::text;
use crate::kube::pods::source::pod as pod_of;
use crate::kube::pods::{Home, Plan};
use crate::report::CliError;

/// Arguments of `lamina pod logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The container [default: the only one].
    #[arg(short, long)]
    container: Option<String>,
    /// Go on as the container writes more, until it ends.
    #[arg(short, long)]
    follow: bool,
    /// The run before the last one.
    #[arg(short, long)]
    previous: bool,
    /// The last lines alone.
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Print the time of each line.
    #[arg(long)]
    timestamps: bool,
    /// The name of the pod.
    pod: String,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &LogsArgs) -> Result<(), CliError> {
    let store = context.store()?;
    let name = (&context.namespace[..], &args.pod[..]);
    let plan = Plan::of(pod_of(&store, name).map_err(failed)?);
    let names: Vec<&str> = plan.containers.iter().map(|one| &one.name[..]).collect();
    let container = match (&args.container, &names[..]) {
        (Some(name), all) if all.contains(&&name[..]) => &name[..],
        (None, [only]) => only,
        (name, all) => {
            let name = name.as_deref().map(|name| format!("no container {name:?}, "));
            let (name, all) = (name.unwrap_or_default(), all.join(", "));
            let text = format!("pod {:?}: {name}choose one with -c: {all}", args.pod);
            return Err(CliError::Usage(text));
        }
    };
    let what = || format!("the log of pod {:?}", args.pod);
    let failure = |error| CliError::Io { what: what(), error };
    let home = Home::new(&context.root, context.runtime_dir.as_deref(), &plan.uid);
    let home = home.map_err(failure)?;
    let wanted = Wanted {
        is_previous: args.previous,
        has_times: args.timestamps,
        tail: args.tail,
        ..Wanted::default()
    };
    let reader = Reader::open(&home.logs(container), wanted).map_err(failure)?;
    let Some(mut reader) = reader else {
        return Err(CliError::Pod(format!("{}: container {container} wrote none", what())));
    };
    let is_running = || {
        let Ok(pod) = pod_of(&store, name) else { return false };
        let lists = ["/status/containerStatuses", "/status/initContainerStatuses"];
        let mut all = lists.iter().filter_map(|list| pod.pointer(list)?.as_array()).flatten();
        let status = all.find(|one| text(one, "/name") == container);
        // The first output may come before the status that says that it runs.
        !status.is_some_and(|one| {
            let reason = text(one, "/state/waiting/reason");
            one.pointer("/state/terminated").is_some() || reason == "CrashLoopBackOff"
        })
    };
    copy(&mut reader, || args.follow && is_running()).map_err(failure)
}
