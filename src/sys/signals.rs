//! Signals that a thread waits for.

use crate::error::Result;
use crate::sys::last;

/// Signals that are blocked, and waited for instead.
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks signals for this thread, and all threads and programs that it starts later.
    ///
    /// # Errors
    /// As pthread_sigmask(3).
    pub fn block(signals: &[i32]) -> Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set that it is given, the other calls change it, and
        // refuse a number that is no signal; pthread_sigmask only reads it and takes a null pointer
        // for "the old mask is not wanted".
        let (set, done) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), *signal);
            }
            let set = set.assume_init();
            let done = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            (set, done)
        };
        if done == 0 { Ok(Self(set)) } else { Err(last("pthread_sigmask")) }
    }

    /// Waits for one of them and returns its number.
    #[must_use]
    pub fn wait(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: sigwait reads the set and writes one int; both live until it returns.
        while unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } != 0 {}
        signal
    }
}
