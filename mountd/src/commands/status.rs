//! `lamina status`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use laminafs::service::status::{MountStatus, list};

use crate::report::{CliError, say, say_json};
use crate::run;

/// Arguments of `lamina status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Show them again and again [default: every 2 s]: on a terminal in the place of the last ones,
    /// elsewhere below them.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,
}

/// Clears a terminal and goes to its beginning.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &StatusArgs) -> Result<ExitCode, CliError> {
    let Some(seconds) = args.watch else {
        show(args.json)?;
        return Ok(ExitCode::SUCCESS);
    };
    let clears = std::io::stdout().is_terminal() && !args.json;
    loop {
        if clears {
            say(CLEAR)?;
        }
        show(args.json)?;
        if std::io::stdout().flush().is_err() {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

fn show(json: bool) -> Result<(), CliError> {
    let dir = run::runtime_dir();
    let found = match &dir {
        Some(dir) => {
            list(dir).map_err(|error| CliError::Io { what: dir.display().to_string(), error })?
        }
        None => Vec::new(),
    };
    if json {
        return say_json(&found);
    }
    say(&found.iter().map(text).collect::<String>())
}

fn text(status: &MountStatus) -> String {
    let mut lines =
        vec![format!("{} on {} (process {})", status.source, status.target.display(), status.pid)];
    match &status.upper {
        Some(upper) => lines.push(format!("upper     {}", upper.display())),
        None => lines.push("upper     none, read-only".to_owned()),
    }
    let lowers = status.lowers.iter().enumerate();
    lines.extend(lowers.map(|(index, lower)| match index {
        0 => format!("lowers    {lower}"),
        _ => format!("          {lower}"),
    }));
    let driver = |index: usize| status.graft_mounts.get(index).map_or("", |graft| &graft.driver);
    let grafts = status.grafts.iter().enumerate();
    lines.extend(grafts.map(|(index, graft)| format!("graft     {graft} ({})", driver(index))));
    let drivers = &status.drivers;
    let rules = [
        (drivers.metacopy, "metacopy"),
        (drivers.redirect, "redirect_dir"),
        (drivers.index, "index"),
        (drivers.volatile, "volatile"),
    ];
    let on: Vec<&str> = rules.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    lines.push(format!(
        "drivers   io {}, copy {}, marks {}, whiteouts {}, {}",
        drivers.io,
        drivers.copy,
        drivers.marks,
        drivers.whiteouts,
        on.join(" ")
    ));
    let union = &status.union;
    lines.push(format!(
        "counters  {} inodes, {} lookups, {} opens ({} passthrough), {} copy-ups ({} bytes), \
         {} listings kept ({} bytes)",
        union.inodes,
        union.lookups,
        union.opens,
        union.passthrough_opens,
        union.copy_ups,
        union.copy_up_bytes,
        union.listings,
        union.listing_bytes
    ));
    if let Some(store) = &status.store {
        let (cache, files) = (&store.cache, &store.materials);
        lines.push(format!(
            "images    {} blocks read, {} hits, {} bytes cached; {} files materialised \
             ({} bytes), {} found, {} evicted; {} damaged",
            cache.misses,
            cache.hits,
            cache.bytes,
            files.made,
            files.made_bytes,
            files.found,
            files.evicted,
            store.damaged
        ));
        let fetched = &store.fetched;
        if fetched.requests > 0 {
            lines.push(format!(
                "registry  {} parts of layers, {} bytes; {} requests failed",
                fetched.requests, fetched.bytes, fetched.failed
            ));
        }
    }
    lines.extend(status.log.iter().map(|place| format!("log       {place}")));
    lines.join("\n  ") + "\n"
}
