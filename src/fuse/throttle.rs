//! Limits on the speed of reads and writes.
//!
//! A request has a time before which it is not served: the limits of its direction place requests
//! behind each other. It waits outside of the union, so nothing else waits for it but the thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::fuse::wire::request::Operation;
use crate::types::{Rate, Speed};

/// What may come at once after a pause, in time.
const BURST: Duration = Duration::from_millis(50);

/// The limits of a session, which change while it is served.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Whether there is a limit; the state decides.
    is_on: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    speed: Speed,
    read: Line,
    write: Line,
    /// Raised with each change: who waits for a time of before goes on.
    changes: u64,
}

/// The times at which the next request and the next byte of a direction are free.
#[derive(Debug, Default)]
struct Line {
    request: Option<Instant>,
    byte: Option<Instant>,
}

/// What a request moves, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// From a file.
    Read(u64),
    /// To a file.
    Write(u64),
}

impl Cost {
    /// The cost of an operation; `None` if it moves no data.
    #[must_use]
    pub const fn of(op: &Operation<'_>) -> Option<Self> {
        match op {
            Operation::Read(arg) => Some(Self::Read(arg.size as u64)),
            Operation::Write { data, .. } => Some(Self::Write(data.len() as u64)),
            _ => None,
        }
    }
}

impl Line {
    /// Places a request behind the others, and returns its time.
    fn place(&mut self, rate: Rate, bytes: u64, now: Instant) -> Instant {
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let mut time = now;
        let units = [(rate.iops, 1, &mut self.request), (rate.bandwidth, bytes, &mut self.byte)];
        for (per_second, units, next) in units {
            let Some(per_second) = per_second.filter(|rate| *rate > 0) else { continue };
            let begin = next.map_or(now, |next| next.max(earliest));
            time = time.max(begin);
            let lasts = Duration::from_secs_f64(units as f64 / per_second as f64);
            *next = Some(begin.checked_add(lasts).unwrap_or(begin));
        }
        time
    }
}

impl Throttle {
    /// Limits from the start.
    #[must_use]
    pub fn new(speed: Speed) -> Self {
        let throttle = Self::default();
        throttle.set(speed);
        throttle
    }

    /// Whether there is a limit.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Sets the limits. Requests that wait go on.
    pub fn set(&self, speed: Speed) {
        let mut state = self.state.lock();
        *state = State { speed, changes: state.changes + 1, ..State::default() };
        self.is_on.store(speed != Speed::default(), Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
    }

    /// Takes the limits away, at the end of the session.
    pub fn end(&self) {
        self.set(Speed::default());
    }

    /// The time before which a request of this cost is not served; `None` for at once.
    pub fn place(&self, cost: Cost) -> Option<Turn<'_>> {
        if !self.is_on() {
            return None;
        }
        let mut state = self.state.lock();
        let speed = state.speed;
        let now = Instant::now();
        let time = match cost {
            Cost::Read(bytes) => state.read.place(speed.read, bytes, now),
            Cost::Write(bytes) => state.write.place(speed.write, bytes, now),
        };
        (time > now).then_some(Turn { throttle: self, time, changes: state.changes })
    }
}

/// The turn of a request.
#[derive(Debug)]
pub struct Turn<'a> {
    throttle: &'a Throttle,
    time: Instant,
    changes: u64,
}

impl Turn<'_> {
    /// Waits for it, or until the limits change.
    pub fn wait(self) {
        let mut state = self.throttle.state.lock();
        while state.changes == self.changes && Instant::now() < self.time {
            self.throttle.changed.wait_until(&mut state, self.time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn speed(read: Rate, write: Rate) -> Speed {
        Speed { read, write }
    }

    #[test]
    fn requests_of_a_direction_follow_each_other() {
        let start = Instant::now();
        let rate = Rate { iops: Some(10), bandwidth: Some(MIB) };
        let mut line = Line::default();
        let times: Vec<_> =
            [0, 0, MIB, 0].iter().map(|bytes| line.place(rate, *bytes, start) - start).collect();
        let ms = Duration::from_millis;
        assert_eq!(times, [ms(0), ms(100), ms(200), ms(1000)]);
        // A pause is not saved up.
        let later = start + Duration::from_secs(60);
        let first = line.place(rate, MIB, later);
        assert_eq!(first, later);
        assert_eq!(line.place(rate, MIB, later) - later, ms(1000) - BURST);
    }

    #[test]
    fn directions_do_not_wait_for_each_other() {
        let limited = Rate { iops: Some(1), bandwidth: None };
        let throttle = Throttle::new(speed(limited, Rate::default()));
        assert!(throttle.place(Cost::Read(1)).is_none());
        assert!(throttle.place(Cost::Read(1)).is_some());
        assert!(throttle.place(Cost::Write(MIB)).is_none());
    }

    #[test]
    fn a_change_ends_the_wait() {
        let limited = Rate { iops: None, bandwidth: Some(1) };
        let throttle = Throttle::new(speed(Rate::default(), limited));
        assert!(throttle.place(Cost::Write(MIB)).is_none());
        let turn = throttle.place(Cost::Write(1)).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| turn.wait());
            throttle.end();
            waits.join().unwrap();
        });
        assert!(!throttle.is_on());
    }
}
