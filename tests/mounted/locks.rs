//! Locks work between descriptors, also when a copy-up happens while they are held.

use std::os::fd::AsFd;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::calls::ofd_lock;
use crate::harness::Site;
use crate::tools::*;

/// `F_RDLCK`, `F_WRLCK` and `F_UNLCK` of `fcntl.h`.
const READ: i32 = 0;
const WRITE: i32 = 1;
const NONE: i32 = 2;

judged!(everywhere:
    whole_file_locks_exclude,
    whole_file_lock_holds_across_copy_up,
    range_locks_exclude_where_they_overlap,
    range_lock_holds_across_copy_up,
    closing_gives_the_lock_back,
    leases_and_locks_on_new_files,
);

fn whole_file_locks_exclude(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    let (one, two) = (open(s.at("f"), OFlags::RDONLY), open(s.at("f"), OFlags::RDONLY));
    let (one, two) = (one.unwrap(), two.unwrap());
    flock(&one, FlockOperation::NonBlockingLockShared).unwrap();
    flock(&two, FlockOperation::NonBlockingLockShared).unwrap();
    fails(flock(&two, FlockOperation::NonBlockingLockExclusive), Errno::AGAIN);
    flock(&one, FlockOperation::Unlock).unwrap();
    flock(&two, FlockOperation::NonBlockingLockExclusive).unwrap();
    fails(flock(&one, FlockOperation::NonBlockingLockShared), Errno::AGAIN);
}

fn whole_file_lock_holds_across_copy_up(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    let holder = open(s.at("f"), OFlags::RDONLY).unwrap();
    flock(&holder, FlockOperation::NonBlockingLockExclusive).unwrap();
    append(s.at("f"), b"y");
    let later = open(s.at("f"), OFlags::RDWR).unwrap();
    fails(flock(&later, FlockOperation::NonBlockingLockShared), Errno::AGAIN);
    drop(holder);
    // A process that another case starts holds our descriptors until it executes its program.
    let free = || flock(&later, FlockOperation::NonBlockingLockShared).is_ok();
    eventually("the lock to be free", free);
}

fn range_locks_exclude_where_they_overlap(s: &mut Site) {
    put(s.lower("f"), "0123456789");
    s.mount();
    let (one, two) = (open(s.at("f"), OFlags::RDWR), open(s.at("f"), OFlags::RDWR));
    let (one, two) = (one.unwrap(), two.unwrap());
    ofd_lock(one.as_fd(), WRITE, 0, 5).unwrap();
    fails_io(ofd_lock(two.as_fd(), READ, 4, 2), Errno::AGAIN);
    ofd_lock(two.as_fd(), WRITE, 5, 5).unwrap();
    ofd_lock(one.as_fd(), NONE, 0, 5).unwrap();
    ofd_lock(two.as_fd(), READ, 4, 2).unwrap();
}

fn range_lock_holds_across_copy_up(s: &mut Site) {
    put(s.lower("f"), "0123456789");
    s.mount();
    let holder = open(s.at("f"), OFlags::RDONLY).unwrap();
    ofd_lock(holder.as_fd(), READ, 0, 0).unwrap();
    append(s.at("f"), b"y");
    let later = open(s.at("f"), OFlags::RDWR).unwrap();
    fails_io(ofd_lock(later.as_fd(), WRITE, 0, 1), Errno::AGAIN);
    drop(holder);
    // A process that another case starts holds our descriptors until it executes its program.
    eventually("the lock to be free", || ofd_lock(later.as_fd(), WRITE, 0, 1).is_ok());
}

fn closing_gives_the_lock_back(s: &mut Site) {
    put(s.lower("f"), "x");
    s.mount();
    let waiter = open(s.at("f"), OFlags::RDONLY).unwrap();
    let holder = open(s.at("f"), OFlags::RDONLY).unwrap();
    flock(&holder, FlockOperation::LockExclusive).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| flock(&waiter, FlockOperation::LockExclusive));
        drop(holder);
        waiting.join().unwrap().unwrap();
    });
}

fn leases_and_locks_on_new_files(s: &mut Site) {
    s.mount();
    let flags = OFlags::RDWR | OFlags::CREATE;
    let one = open(s.at("new"), flags).unwrap();
    let two = open(s.at("new"), flags).unwrap();
    flock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
    fails(flock(&two, FlockOperation::NonBlockingLockExclusive), Errno::AGAIN);
    ofd_lock(two.as_fd(), WRITE, 0, 0).unwrap();
    fails_io(ofd_lock(one.as_fd(), READ, 0, 0), Errno::AGAIN);
}
