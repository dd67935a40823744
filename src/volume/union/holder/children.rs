//! The children of the holder: those that it starts, and those that these leave to it.
//!
//! One thread waits for all of them. A child is started under the lock under which the end of a
//! child is taken: so no end is missed, and none is taken from the standard library, which waits
//! by itself for a child that it cannot start.

use std::collections::HashMap;
use std::io;
use std::process::{ChildStderr, Command};
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::{Condvar, Mutex};

use crate::sys::process;

/// The children of this process.
#[derive(Debug, Default)]
pub(super) struct Children {
    started: Mutex<Started>,
    change: Condvar,
}

#[derive(Debug, Default)]
struct Started {
    /// Who waits for the end of a child that was started here.
    waiting: HashMap<u32, Sender<u8>>,
    /// Whether a child may exist.
    any: bool,
}

impl Children {
    /// Starts a child. Returns its standard error, and where its exit code appears.
    ///
    /// # Errors
    /// As fork(2) and execve(2).
    pub(super) fn start(
        &self,
        command: &mut Command,
    ) -> io::Result<(Option<ChildStderr>, Receiver<u8>)> {
        let (send, receive) = channel();
        let mut started = self.started.lock();
        let mut child = command.spawn()?;
        started.waiting.insert(child.id(), send);
        started.any = true;
        self.change.notify_all();
        Ok((child.stderr.take(), receive))
    }

    /// Takes the ends of all children, for ever.
    pub(super) fn reap(&self) {
        loop {
            match process::await_ended() {
                Ok(Some(pid)) => {
                    let mut started = self.started.lock();
                    let Ok(Some(code)) = process::try_wait_for(pid) else { continue };
                    let number = pid.as_raw_nonzero().get().cast_unsigned();
                    let waiting = started.waiting.remove(&number);
                    // No thread waits for a descendant that lost its parent.
                    if waiting.is_some_and(|waiting| waiting.send(code).is_err()) {
                        tracing::debug!(number, "no thread waits for the end of a process");
                    }
                }
                Ok(None) => self.await_start(),
                Err(error) => {
                    tracing::error!(%error, "waiting for processes");
                    std::thread::sleep(std::time::Duration::from_secs(1));
                }
            }
        }
    }

    /// Waits for a start after all children have ended.
    fn await_start(&self) {
        let mut started = self.started.lock();
        // One may have been started since they were counted.
        if !started.waiting.is_empty() {
            return;
        }
        started.any = false;
        self.change.notify_all();
        while !started.any {
            self.change.wait(&mut started);
        }
    }

    /// Waits until there is no child.
    pub(super) fn await_none(&self) {
        let mut started = self.started.lock();
        while started.any {
            self.change.wait(&mut started);
        }
    }
}
