//! The controller of a command: it carries out what is due, and ends.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::events::LIFE;
use super::lead::{Leader, take};
use super::{Controller, Setup};
use crate::kube::status::{Answer, Failure};

/// Between two looks whether another command is done.
const LOOK: Duration = Duration::from_millis(20);
/// A retry that is due later than this is left to the next command, or to a daemon.
const SOON: Duration = Duration::from_millis(300);
/// How long one wait for an order takes before changes of others are looked for.
const PATIENCE: Duration = Duration::from_millis(100);

/// The right of a command to carry out what is due.
pub struct Turn(File);

impl Turn {
    /// Waits until no other command has the controller. `None` if a daemon has it, which carries
    /// out what is due.
    ///
    /// # Errors
    /// Those of the lock file.
    pub fn wait(lock: &Path) -> Answer<Option<Self>> {
        loop {
            match take(lock, Leader::Command) {
                Ok(Ok(file)) => return Ok(Some(Self(file))),
                Ok(Err(Leader::Daemon)) => return Ok(None),
                Ok(Err(Leader::Command)) => sleep(LOOK),
                Err(error) => {
                    return Err(Failure::internal(&format!("{}: {error}", lock.display())));
                }
            }
        }
    }

    /// Carries out what is due, until nothing is but retries that are far off.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub fn settle(self, setup: Setup) -> Answer<()> {
        // The objects are read under the lock.
        let mut controller = Controller::new(setup)?;
        let orphans = controller.orders.drivers.remove_orphans(&controller.mirror.objects);
        controller.work_off()?;
        controller.store.delete_events(LIFE)?;
        if orphans.is_some_and(|orphans| orphans.join().is_err()) {
            return Err(Failure::internal("looking for volumes without a claim was interrupted"));
        }
        drop(self.0);
        Ok(())
    }
}

impl Controller {
    fn work_off(&mut self) -> Answer<()> {
        loop {
            self.store.look()?;
            self.look()?;
            self.turn();
            let is_busy = !self.queue.is_empty() || self.has_news;
            let wait = match self.orders.running() {
                _ if is_busy => Duration::ZERO,
                0 => match self.next_retry() {
                    Some(wait) => wait,
                    None => return Ok(()),
                },
                _ => PATIENCE,
            };
            match self.signals.recv_timeout(wait) {
                Ok(signal) => drop(self.receive(signal)),
                Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
            }
            self.ring();
        }
    }

    /// How long it is until the next retry, if that is soon.
    fn next_retry(&self) -> Option<Duration> {
        let ((at, _), _) = self.timers.first_key_value()?;
        Some(at.saturating_duration_since(Instant::now())).filter(|wait| *wait <= SOON)
    }
}
