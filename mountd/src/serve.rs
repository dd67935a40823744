//! The daemon of all front ends, `lamina serve`.
//!
//! | file | its part |
//! | --- | --- |
//! | `config` | flags, the configuration file, defaults |
//! | `sockets` | what front ends listen on |
//! | `http`, `patient` | connections and their limits |
//! | `calls` | blocking calls, so that one volume that hangs delays no other |
//! | `docker` | the volume plugin of Docker |
//! | `kube` | the API of Kubernetes for storage objects |
//! | `csi` | the socket of the Container Storage Interface |
//! | `health`, `metrics`, `sample` | monitoring |
//! | `upkeep` | the volumes in use at the start, and the trash |
//! | `notify` | the service manager |
//!
//! The daemon holds no state that a restart loses: volumes, mounts and their holders are in the
//! catalogue. Its end unmounts nothing.

pub mod calls;
pub mod config;
pub mod csi;
pub mod docker;
pub mod health;
pub mod http;
pub mod kube;
pub mod metrics;
pub mod notify;
pub mod patient;
pub mod sample;
pub mod sockets;
pub mod upkeep;
pub mod volumes;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use laminafs::service::volumes::{TrashPolicy, VolumeService};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::calls::Calls;
use self::config::{Config, Flags};
use self::docker::{Docker, Patience};
use self::http::Front;
use self::metrics::Metrics;
use self::sample::Sampler;
use self::sockets::{Bound, Removal, Sockets};
use crate::csi::Driver;
use crate::report::CliError;

/// Threads of the runtime. Blocking calls have their own.
const WORKERS: usize = 2;
/// How long threads that are still in a call are waited for at the very end.
const LAST: Duration = Duration::from_millis(100);

/// Serves until a signal ends it.
///
/// # Errors
/// [`CliError`] if the configuration is wrong, a socket cannot be had, or the data root not opened.
pub fn run(flags: &Flags) -> Result<ExitCode, CliError> {
    // Before the first thread: each would have an arena of its own.
    laminafs::service::process::return_memory();
    let config = flags.resolve()?;
    crate::log::serve(&config.log)?;
    let failed = |error| CliError::Io { what: "starting threads".to_owned(), error };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(threads(&config.limits))
        .enable_all()
        .build()
        .map_err(failed)?;
    // A client may connect, and end the daemon, as soon as the sockets are there. From here on a
    // signal ends the daemon in order.
    let signals = runtime.block_on(async { Signals::new() })?;
    let sockets = Sockets::open(&config)?;
    let root = crate::run::data_root(config.root.clone());
    let volumes = VolumeService::open(&root)?;
    tracing::info!("serving the volumes of {}", root.display());
    let done = runtime.block_on(async {
        let daemon = Daemon::start((flags.clone(), root), config, volumes, signals).await;
        daemon.serve(sockets).await
    });
    runtime.shutdown_timeout(LAST);
    done.map(|()| ExitCode::SUCCESS)
}

/// Threads for blocking calls: of the plugin, of the API of Kubernetes, and of CSI.
const fn threads(limits: &config::Limits) -> usize {
    Calls::threads(limits.calls) + kube::THREADS + limits.calls + 5
}

/// Whether volumes of the CSI driver grow by its controller.
fn grows_in_controller() -> bool {
    std::env::var_os("LAMINA_CSI_EXPAND").is_none_or(|value| value != "node")
}

/// The signals that the daemon listens to.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let failed = |error| CliError::Io { what: "catching signals".to_owned(), error };
        let on = |kind| signal(kind).map_err(failed);
        Ok(Self {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
            hup: on(SignalKind::hangup())?,
        })
    }
}

/// What runs.
struct Daemon {
    flags: Flags,
    root: PathBuf,
    config: Config,
    signals: Signals,
    calls: Arc<Calls>,
    volumes: Arc<VolumeService>,
    sampler: Sampler,
    usage_seconds: watch::Sender<u64>,
    trash: watch::Sender<TrashPolicy>,
}

impl Daemon {
    async fn start(
        (flags, root): (Flags, PathBuf),
        config: Config,
        volumes: VolumeService,
        signals: Signals,
    ) -> Self {
        let volumes = Arc::new(volumes);
        upkeep::start(Arc::clone(&volumes), config.publishes()).await;
        tokio::spawn(upkeep::settle(Arc::clone(&volumes)));
        let trash = watch::Sender::new(config.trash.policy());
        tokio::spawn(upkeep::empty_trash(Arc::clone(&volumes), trash.subscribe()));
        let calls = Calls::new(config.limits.calls, config.limits.waiting);
        let sampler = Sampler {
            volumes: Arc::<VolumeService>::clone(&volumes),
            calls: Arc::clone(&calls),
            metrics: Metrics::new(Arc::clone(&calls)),
            runtime: crate::run::runtime_dir(),
        };
        let usage_seconds = watch::Sender::new(config.limits.usage_seconds);
        Self { flags, root, config, signals, calls, volumes, sampler, usage_seconds, trash }
    }

    fn front(&self, name: &'static str, router: axum::Router) -> Front {
        let metrics = Arc::clone(&self.sampler.metrics);
        Front { name, router, connections: self.config.limits.connections, metrics }
    }

    /// The API of Kubernetes at a listener. It blocks.
    fn kube(
        &self,
        listener: &TcpListener,
        csi: Option<&Bound>,
        ending: watch::Receiver<bool>,
    ) -> Result<kube::Front, CliError> {
        let failed = |error| CliError::Io { what: "the socket of kube".to_owned(), error };
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!("kube listens on {address}");
        kube::Front::new(kube::Setup {
            root: &self.root,
            address,
            node: &self.config.kube.node,
            volumes: Arc::clone(&self.volumes),
            map: self.config.kube.map.clone(),
            run_pods: self.config.kube.run_pods,
            connections: self.config.limits.connections,
            csi: csi
                .filter(|_| self.config.csi.role.has_controller() && grows_in_controller())
                .and_then(Bound::path)
                .map(Path::to_owned),
            metrics: Arc::clone(&self.sampler.metrics),
            ending,
        })
    }

    /// The driver of the Container Storage Interface.
    fn csi(&self) -> Arc<Driver> {
        let Config { kube, csi, limits, .. } = &self.config;
        let node = match kube.node.as_str() {
            "" => kube::node::host_name(),
            node => node.to_owned(),
        };
        let mut driver = Driver::new(Arc::clone(&self.volumes), node, csi.role, limits.calls);
        driver.max_volumes = csi.max_volumes;
        driver.has_alpha = csi.alpha;
        driver.grows_in_controller = grows_in_controller();
        Arc::new(driver)
    }

    async fn serve(mut self, sockets: Sockets) -> Result<(), CliError> {
        let (end, ending) = watch::channel(false);
        let mut fronts = JoinSet::new();
        let mut files: Vec<Removal> = Vec::new();
        if let Some(listener) = sockets.kube {
            let front = self.kube(&listener, sockets.csi.as_ref(), ending.clone())?;
            fronts.spawn(front.serve(listener));
        }
        if let Some(bound) = sockets.csi {
            let driver = self.csi();
            tracing::info!("csi listens on {} as {}", bound.place, driver.role);
            let (listener, file) = bound.split();
            files.push(file);
            let metrics = Arc::clone(&self.sampler.metrics);
            let connections = self.config.limits.connections;
            let front = csi::Front { driver, connections, metrics };
            fronts.spawn(front.serve(listener, ending.clone()));
        }
        let mut start = |front: Front, bound: Bound| {
            tracing::info!("{} listens on {}", front.name, bound.place);
            let (listener, file) = bound.split();
            files.push(file);
            fronts.spawn(front.serve(listener, ending.clone()));
        };
        if let Some(bound) = sockets.docker {
            let (calls, metrics) = (Arc::clone(&self.calls), Arc::clone(&self.sampler.metrics));
            let volumes = Arc::clone(&self.sampler.volumes);
            let docker = Docker::new(volumes, calls, metrics, Patience::default());
            start(self.front("docker", docker.router()), bound);
        }
        if let Some(bound) = sockets.metrics {
            start(self.front("metrics", health::router(self.sampler.clone())), bound);
            tokio::spawn(self.sampler.clone().run(self.usage_seconds.subscribe()));
        }
        tokio::spawn(notify::watchdog());
        notify::ready("serving");
        let failed = self.wait(&mut fronts).await;
        notify::stopping(self.config.limits.end());
        // The paths are free for a next daemon before the last calls are done.
        drop(files);
        if end.send(true).is_err() {
            tracing::debug!("no front end is left");
        }
        self.finish(fronts).await;
        failed
    }

    /// Waits for a signal that ends the daemon, or for a front end that fails.
    async fn wait(&mut self, fronts: &mut JoinSet<std::io::Result<()>>) -> Result<(), CliError> {
        loop {
            tokio::select! {
                _ = self.signals.term.recv() => return Ok(()),
                _ = self.signals.int.recv() => return Ok(()),
                _ = self.signals.hup.recv() => self.reload(),
                Some(ended) = fronts.join_next() => {
                    let error = match ended {
                        Ok(Ok(())) => continue,
                        Ok(Err(error)) => error,
                        Err(error) => error.into(),
                    };
                    return Err(CliError::Io { what: "a front end ended".to_owned(), error });
                }
            }
        }
    }

    /// Waits for the requests that are under way, and for calls whose clients are gone.
    async fn finish(&mut self, mut fronts: JoinSet<std::io::Result<()>>) {
        tracing::info!("ending: waiting for {} running calls", self.calls.load().running);
        let all = async {
            while fronts.join_next().await.is_some() {}
            while self.calls.load() != calls::Load::default() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let is_done = tokio::select! {
            () = all => true,
            () = tokio::time::sleep(self.config.limits.end()) => false,
            // A second signal does not wait.
            _ = self.signals.term.recv() => false,
            _ = self.signals.int.recv() => false,
        };
        if !is_done {
            tracing::warn!("{} calls are left running", self.calls.load().running);
        }
        tracing::info!("ended; mounts and their users stay");
    }

    /// Reads the configuration again and applies what can change while the daemon runs.
    fn reload(&mut self) {
        notify::reloading();
        let new = self.flags.resolve().and_then(|new| {
            crate::log::serve(&new.log)?;
            Ok(new)
        });
        self.sampler.metrics.reloaded(new.is_ok());
        match new {
            Ok(new) => {
                for sentence in self.config.needs_restart(&new) {
                    tracing::warn!("reload: {sentence}");
                }
                self.usage_seconds.send_replace(new.limits.usage_seconds);
                self.config.limits.usage_seconds = new.limits.usage_seconds;
                self.config.limits.end_seconds = new.limits.end_seconds;
                self.trash.send_replace(new.trash.policy());
                self.config.trash = new.trash;
                self.config.log = new.log;
                tracing::info!("reloaded the configuration");
            }
            Err(error) => tracing::error!("reload: {error}; the old configuration stays"),
        }
        notify::ready("serving");
    }
}
