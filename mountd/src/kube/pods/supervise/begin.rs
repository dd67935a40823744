//! Starting a container: its image, its root, what it gets, its runtime.

use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use laminafs::service::images::Images;
use serde_json::Value;

use super::remover::Remover;
use super::{Run, Supervisor, watch};
use crate::container::files::{OF_HOST, make_dir, write, write_of_host};
use crate::container::launch::Launch;
use crate::container::logs::{Log, pump};
use crate::kube::meta::{now, text};
use crate::kube::pods::fault::Fault;
use crate::kube::pods::launch::of_pod;
use crate::kube::pods::plan::Container;
use crate::kube::pods::state::{State, back_off};
use crate::kube::pods::user::user;
use crate::kube::pods::{env, mounts};

/// A container that could not be started, with what its status says.
struct Refused {
    reason: &'static str,
    fault: Fault,
}

fn creating(what: &'static str) -> impl Fn(io::Error) -> Refused {
    move |error| {
        let fault = Fault::new(format!("{what}: {error}"));
        Refused { reason: "CreateContainerError", fault }
    }
}

const fn config(fault: Fault) -> Refused {
    Refused { reason: "CreateContainerConfigError", fault }
}

impl Supervisor {
    /// Starts a container, or notes why it could not be started, and when that is tried again.
    pub(super) fn begin(&mut self, index: usize, container: &Container) {
        let begun = self.try_begin(index, container);
        let (field, name) = (container.field.clone(), &container.name);
        match begun {
            Ok((run, image)) => {
                self.say(&field, false, ("Created", format!("Created container: {name}")));
                let Some(slot) = self.slots.get_mut(index) else { return };
                let is_again = match &slot.standing.state {
                    State::Ended(ended) => {
                        slot.standing.last = Some(ended.clone());
                        true
                    }
                    State::Waiting { .. } => slot.standing.last.is_some(),
                    State::Running { .. } => false,
                };
                if is_again {
                    slot.standing.restarts += 1;
                }
                slot.standing.image = image;
                slot.standing.id = self.engine.shown(&run.id);
                if !is_again {
                    let (reason, message) = ("ContainerCreating", String::new());
                    slot.standing.state = State::Waiting { reason, message };
                }
                slot.run = Some(run);
            }
            Err(Refused { reason, fault }) => {
                let event = if reason == "ErrImageNeverPull" { reason } else { "Failed" };
                let message = match event {
                    "Failed" => format!("Error: {fault}"),
                    _ => fault.to_string(),
                };
                self.say(&field, true, (event, message));
                let Some(slot) = self.slots.get_mut(index) else { return };
                slot.failures += 1;
                slot.next = Instant::now() + back_off(slot.failures);
                if let State::Ended(ended) = &slot.standing.state {
                    slot.standing.last = Some(ended.clone());
                }
                slot.standing.state = State::Waiting { reason, message: fault.to_string() };
            }
        }
    }

    /// The configuration and the id of an image of the store.
    fn image(&mut self, container: &Container) -> Result<(Value, String), Refused> {
        let image = &container.image;
        let found = Images::open(self.home.root()).and_then(|images| images.inspect(image));
        let found = found.map_err(|refusal| {
            let text = format!(
                "Container image {image:?} is not present in the store: {refusal}; bring it with \
                 lamina image pull or import"
            );
            Refused { reason: "ErrImageNeverPull", fault: Fault::new(text) }
        })?;
        let text = format!("Container image {image:?} already present on machine");
        self.say(&container.field, false, ("Pulled", text));
        Ok((found.config, format!("sha256:{}", found.info.id)))
    }

    fn try_begin(&mut self, index: usize, container: &Container) -> Result<(Run, String), Refused> {
        let (image, image_id) = self.image(container)?;
        let bundle = self.home.bundle(&container.name);
        let launch = self.launch(container, &image)?;
        let mut command =
            self.engine.run(&bundle, &launch).map_err(creating("writing the bundle"))?;
        let remover = Remover::of(&command, self.engine.name(), (&self.home, &launch.id));
        let log = Log::begin(&self.home.logs(&container.name)).map_err(creating("its log"))?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(creating("starting the runtime"))?;
        let log = Arc::new(Mutex::new(log));
        let mut pumps = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            pumps.push(started("stdout", &log, move |log| pump(stdout, "stdout", log)));
        }
        if let Some(stderr) = child.stderr.take() {
            pumps.push(started("stderr", &log, move |log| pump(stderr, "stderr", log)));
        }
        let sender = self.sender.clone();
        let watching = std::thread::Builder::new().name("container".to_owned());
        let watching = watching.spawn(move || watch(child, index, sender));
        watching.map_err(creating("starting a thread"))?;
        let pumps = pumps.into_iter().flatten().collect();
        let (id, began, at) = (launch.id, now(), Instant::now());
        let signal = match text(&image, "/config/StopSignal") {
            "" => "TERM",
            signal => signal.trim_start_matches("SIG"),
        };
        let run = Run {
            id,
            began,
            at,
            bundle,
            pumps,
            has_begun: false,
            signal: signal.to_owned(),
            remover,
            failures: 0,
            left: None,
        };
        Ok((run, image_id))
    }

    /// Mounts the root of a container and describes how it is run.
    fn launch(&mut self, container: &Container, image: &Value) -> Result<Launch, Refused> {
        let name = &container.name;
        let root = self.home.container(name);
        mounts::unmount_below(&root).map_err(creating("its root"))?;
        let image_word = format!("--image={}", container.image);
        let words = [&image_word[..], "--ephemeral", "-o", "suid"];
        mounts::lamina(&words, &root, self.home.root()).map_err(creating("mounting its root"))?;
        let variables =
            env::variables(&self.store, &self.plan, container, image).map_err(config)?;
        let user = user(&self.plan, container, image, &root).map_err(config)?;
        let run = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let run = run.as_ref().map_or(0, Duration::as_millis);
        let id = format!("{}.{name}.{run}", self.plan.uid);
        let launch = of_pod(
            (&self.plan, container),
            image,
            (&variables, user),
            (&root, id),
            self.engine.has_cgroups,
        );
        let mut launch = launch.map_err(config)?;
        let none = std::collections::BTreeMap::new();
        let ready = self.ready.as_ref().unwrap_or(&none);
        launch.binds = self.site().binds(ready, container, &variables).map_err(config)?;
        let files = self.home.files(name);
        make_dir(&files)
            .and_then(|()| write_of_host(&files, &launch.hostname, &self.address))
            .and_then(|()| write(&files.join("termination-log"), "", 0o666))
            .map_err(creating("writing its files"))?;
        for file in OF_HOST {
            launch.add_file(files.join(file), &format!("/etc/{file}"));
        }
        let last = text(&container.spec, "/terminationMessagePath");
        if last.starts_with('/') {
            launch.add_file(files.join("termination-log"), last);
        }
        Ok(launch)
    }
}

/// Copies a stream of a container on a thread. Without one the container has no output.
fn started(
    name: &'static str,
    log: &Arc<Mutex<Log>>,
    copy: impl FnOnce(&Arc<Mutex<Log>>) + Send + 'static,
) -> Option<JoinHandle<()>> {
    let log = Arc::clone(log);
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || copy(&log));
    started.inspect_err(|error| tracing::error!(%error, "starting a thread")).ok()
}
