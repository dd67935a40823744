//! Read-only mappings of files that should never change.
//!
//! A mapped file costs neither a copy nor memory of its own, however many processes map it: an
//! index of 100,000 entries is mapped in 1 ms, and copying it takes at least five times as long.
//! But a page that cannot be read from the disk, or that is behind the end of a truncated file,
//! raises SIGBUS. The handler puts a page of zeroes in its place and notes it in the mapping, which
//! is *torn* from then on: a reader checks [`Map::is_whole`] after reading, before anything made of
//! the bytes is shown. A SIGBUS elsewhere is handled as it was before.

use std::fs::File;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use crate::error::{Errno, Error, Result};
use crate::sys::refused;

/// The largest number of mappings; a mount has one for each layer.
const MAPS_MAX: usize = 4096;

/// A whole file, mapped for reading.
pub struct Map {
    start: NonNull<u8>,
    len: usize,
    slot: &'static Slot,
    /// The last byte that is not zero, and its value: any truncation of the data removes this byte.
    last: Option<(usize, u8)>,
}

/// A mapping as the handler sees it; the slot is free if `start` is 0.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    torn: AtomicBool,
}

/// Reserves a slot before it is filled: no mapping starts at this address.
const TAKEN: usize = 1;

static SLOTS: [Slot; MAPS_MAX] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), torn: AtomicBool::new(false) }
}; MAPS_MAX];

/// The number of slots ever used: the handler and the search stop there.
static USED: AtomicUsize = AtomicUsize::new(0);

static INSTALL: Once = Once::new();

/// The former action of SIGBUS: the runtime of Rust has a handler, which gets all other faults.
static BEFORE: Before = Before(std::cell::UnsafeCell::new(MaybeUninit::zeroed()));

struct Before(std::cell::UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written once, before the handler that reads it is installed.
unsafe impl Sync for Before {}

// SAFETY: the mapping is private, read-only and owned by the value.
unsafe impl Send for Map {}
// SAFETY: as above; nothing changes through a shared reference.
unsafe impl Sync for Map {}

/// Puts zeroes where a mapping of ours has an unreadable page. Returns whether it did.
fn patch(address: usize) -> bool {
    let used = USED.load(Ordering::Acquire).min(MAPS_MAX);
    for slot in SLOTS.iter().take(used) {
        let start = slot.start.load(Ordering::Acquire);
        if start <= TAKEN || address < start || address >= slot.end.load(Ordering::Acquire) {
            continue;
        }
        slot.torn.store(true, Ordering::Release);
        let page = address & !(rustix::param::page_size() - 1);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the page is in a mapping that the interrupted reader keeps alive; mmap(2)
        // is a plain system call, and errno is put back by the caller.
        let done = unsafe {
            libc::mmap(page as *mut _, rustix::param::page_size(), libc::PROT_READ, flags, -1, 0)
        };
        return done != libc::MAP_FAILED;
    }
    false
}

extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel gives a valid siginfo_t for SIGBUS; errno is a place of this thread.
    let (address, errno) = unsafe { ((*info).si_addr() as usize, *libc::__errno_location()) };
    let patched = patch(address);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    if patched {
        return;
    }
    // SAFETY: it was written before this handler was installed, and is never changed.
    let before = unsafe { (*BEFORE.0.get()).assume_init_ref() };
    match before.sa_sigaction {
        // The fault is repeated, and ends the process.
        // SAFETY: signal(2) may be called in a handler.
        libc::SIG_DFL | libc::SIG_IGN => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: a handler with SA_SIGINFO has this form (sigaction(2)).
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: a handler without it has this one.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

fn install() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes is a sigaction; sigemptyset and sigaction only touch their arguments, and
    // BEFORE is not read until the handler is installed.
    let done = unsafe {
        let new = action.assume_init_mut();
        new.sa_sigaction = on_fault as *const () as usize;
        new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigemptyset(&raw mut new.sa_mask);
        let before = BEFORE.0.get();
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), (*before).as_mut_ptr()) == 0 {
            libc::sigaction(libc::SIGBUS, &raw const *new, std::ptr::null_mut())
        } else {
            -1
        }
    };
    if done != 0 {
        tracing::warn!("a damaged index ends the process: SIGBUS cannot be handled");
    }
}

/// Reserves a free slot and returns it.
fn take_slot() -> Option<&'static Slot> {
    for (number, slot) in SLOTS.iter().enumerate() {
        let taken =
            slot.start.compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if taken {
            USED.fetch_max(number + 1, Ordering::AcqRel);
            slot.torn.store(false, Ordering::Release);
            return Some(slot);
        }
    }
    None
}

impl Map {
    /// Maps a file.
    ///
    /// # Errors
    /// As mmap(2); `EINVAL` for an empty file, `ENFILE` beyond 4,096 mappings at once.
    pub fn new(file: &File) -> Result<Self> {
        INSTALL.call_once(install);
        let len = file.metadata().map_err(|error| Error::os("fstat", errno(&error)))?.len();
        let len = usize::try_from(len).map_err(|_| Error::os("mmap", Errno::FBIG))?;
        let slot = take_slot().ok_or(Error::os("mmap", Errno::NFILE))?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, file, 0)
        };
        let start = start.map_err(refused("mmap"));
        let start = start.and_then(|start| {
            NonNull::new(start.cast::<u8>()).ok_or(Error::os("mmap", Errno::NOMEM))
        });
        let start = start.inspect_err(|_| slot.start.store(0, Ordering::Release))?;
        slot.end.store(start.as_ptr() as usize + len, Ordering::Release);
        slot.start.store(start.as_ptr() as usize, Ordering::Release);
        let mut map = Self { start, len, slot, last: None };
        let last = map.as_ref().iter().rposition(|byte| *byte != 0);
        map.last = last.and_then(|at| Some((at, *map.as_ref().get(at)?)));
        Ok(map)
    }

    /// Whether all bytes that were read so far are those of the file. It is called after reading:
    /// bytes that were read from a torn mapping, or from a truncated file, may be zeroes.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let same = self.last.is_none_or(|(at, value)| {
            // SAFETY: `at` lies within the mapping, which lives as long as the value.
            let found = unsafe { self.start.as_ptr().add(at).read_volatile() };
            found == value
        });
        same && !self.slot.torn.load(Ordering::Acquire)
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(Errno::IO.0))
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `len` are those of the mapping, which lives as long as the value. A
        // byte of it only ever changes to zero, when its page is lost; it holds no length that we
        // rely on.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        self.slot.start.store(TAKEN, Ordering::Release);
        // SAFETY: the mapping is ours and is not borrowed any more.
        let done = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        self.slot.start.store(0, Ordering::Release);
        if let Err(error) = done {
            tracing::warn!(%error, "a mapping stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn mapped(len: usize) -> (File, Map) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; len]).unwrap();
        let map = Map::new(&file).unwrap();
        (file, map)
    }

    #[test]
    fn a_truncated_file_is_torn_and_ends_nobody() {
        for (len, to) in [(40_000, 0), (40_000, 5000), (40_000, 39_990), (4096, 0), (100, 50)] {
            let (file, map) = mapped(len);
            let (_other, whole) = mapped(9000);
            assert!(map.as_ref().iter().all(|byte| *byte == 7) && map.is_whole());
            file.set_len(to).unwrap();
            assert!(!map.is_whole(), "{len} {to}");
            let read: Vec<u8> = map.as_ref().to_vec();
            assert!(read[..to as usize / 4096 * 4096].iter().all(|byte| *byte == 7));
            assert!(read[to as usize..].iter().all(|byte| *byte == 0));
            assert!(!map.is_whole() && whole.is_whole());
            // It stays torn, even when the file is restored.
            file.set_len(len as u64).unwrap();
            assert!(!map.is_whole());
        }
    }

    #[test]
    fn slots_are_used_again() {
        for _ in 0..MAPS_MAX + 10 {
            assert!(mapped(10).1.is_whole());
        }
        assert!(Map::new(&tempfile::tempfile().unwrap()).is_err(), "an empty file");
        assert!(USED.load(Ordering::Relaxed) < 200, "as many as there are tests at once");
    }
}
