//! Waiting for what happens soon.

use std::time::{Duration, Instant};

/// More than anything takes on a busy host.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Waits for a condition.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}
