//! The identity with which a thread makes files.
//!
//! The kernel keeps file system ids of a thread apart from its effective ids; a new object gets the
//! former. A thread that changes them away from root loses the capabilities over files unless
//! `SECBIT_NO_SETUID_FIXUP` is set, so [`assume`] sets it first, once for each thread.
//! Supplementary groups stay those of the process: with the capabilities kept they have no effect.

use std::cell::Cell;

use rustix::thread::CapabilitiesSecureBits;

use crate::types::Owner;

/// An id that setfsuid(2) and setfsgid(2) never set: they only return the present one.
const NO_ID: u32 = u32::MAX;

/// The state of a thread.
#[derive(Clone, Copy)]
enum Thread {
    Unknown,
    /// Capabilities stay when the ids change; these are the thread's own.
    Able(Owner),
    /// The kernel refused to keep capabilities.
    Unable(Owner),
}

thread_local! {
    static THREAD: Cell<Thread> = const { Cell::new(Thread::Unknown) };
}

fn setfsuid(uid: u32) -> u32 {
    // SAFETY: the call takes a number, changes only the credentials of this thread and returns
    // the former id; it cannot fail in a way that touches memory.
    let former = unsafe { libc::setfsuid(uid) };
    former.cast_unsigned()
}

fn setfsgid(gid: u32) -> u32 {
    // SAFETY: as for setfsuid.
    let former = unsafe { libc::setfsgid(gid) };
    former.cast_unsigned()
}

fn keep_capabilities() -> bool {
    let wanted = CapabilitiesSecureBits::NO_SETUID_FIXUP;
    match rustix::thread::capabilities_secure_bits() {
        Ok(bits) if bits.contains(wanted) => true,
        Ok(bits) => rustix::thread::set_capabilities_secure_bits(bits | wanted).is_ok(),
        Err(_) => false,
    }
}

/// Lets threads that are started from now on keep their capabilities when they take other ids. A
/// thread that cannot makes objects that belong to the process.
pub fn prepare() {
    keep_capabilities();
}

fn thread() -> Thread {
    let known = THREAD.get();
    if !matches!(known, Thread::Unknown) {
        return known;
    }
    let own = Owner { uid: setfsuid(NO_ID), gid: setfsgid(NO_ID) };
    let known = if keep_capabilities() { Thread::Able(own) } else { Thread::Unable(own) };
    THREAD.set(known);
    known
}

/// Runs `make` with the file system ids of `owner` on this thread. Returns its result, and whether
/// the ids were in force: if not, an object belongs to the process.
pub fn assume<T>(owner: Owner, make: impl FnOnce() -> T) -> (T, bool) {
    match thread() {
        Thread::Able(own) if own == owner => (make(), true),
        Thread::Able(own) => {
            let mut assumed = Assumed::new(own, owner);
            let made = make();
            let in_force = assumed.end();
            (made, in_force)
        }
        Thread::Unable(own) => (make(), own == owner),
        Thread::Unknown => (make(), false),
    }
}

/// Foreign ids of this thread; its own are restored at the end, after a panic too.
struct Assumed {
    own: Owner,
    owner: Owner,
    ended: bool,
}

impl Assumed {
    fn new(own: Owner, owner: Owner) -> Self {
        setfsgid(owner.gid);
        setfsuid(owner.uid);
        Self { own, owner, ended: false }
    }

    // The former ids that the calls return show whether the requested ids had been set.
    fn end(&mut self) -> bool {
        self.ended = true;
        let former = Owner { uid: setfsuid(self.own.uid), gid: setfsgid(self.own.gid) };
        former == self.owner
    }
}

impl Drop for Assumed {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
    }
}
