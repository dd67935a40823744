//! Objects that a call works on. A second call for one of them is told to come back later.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fault::Fault;

/// The objects of a driver that calls work on.
#[derive(Debug, Default)]
pub struct Busy(Mutex<BTreeSet<String>>);

/// The objects of one call. They are free when it is dropped.
#[derive(Debug)]
pub struct Held {
    busy: Arc<Busy>,
    keys: Vec<String>,
}

impl Busy {
    fn keys(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all of these objects, or none.
    ///
    /// # Errors
    /// `ABORTED` if a call works on one of them.
    pub fn hold(self: &Arc<Self>, mut keys: Vec<String>) -> Result<Held, Fault> {
        keys.sort_unstable();
        keys.dedup();
        let mut held = self.keys();
        if let Some(key) = keys.iter().find(|key| held.contains(*key)) {
            return Err(Fault::aborted(format!("another call works on {key}: try again later")));
        }
        held.extend(keys.iter().cloned());
        drop(held);
        Ok(Held { busy: Arc::clone(self), keys })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.busy.keys();
        for key in &self.keys {
            held.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_calls_do_not_work_on_one_object() {
        let busy = Arc::new(Busy::default());
        let one = busy.hold(vec!["a".to_owned(), "b".to_owned(), "a".to_owned()]).unwrap();
        let error = busy.hold(vec!["c".to_owned(), "b".to_owned()]).unwrap_err();
        assert_eq!(error.code(), tonic::Code::Aborted);
        assert!(busy.hold(vec!["c".to_owned()]).is_ok(), "a refused call took c");
        drop(one);
        assert!(busy.hold(vec!["a".to_owned(), "b".to_owned()]).is_ok());
    }
}
