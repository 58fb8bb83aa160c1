//! From generated records to a sink: unpaced in one thread, paced in two.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};

use crate::pace::{Lateness, Pace, Schedule, make_timers_exact, now_ns, sleep_towards};
use crate::render::Event;
use crate::sink::{Item, Sent, Sink, SinkError};
use crate::stats::Ending;

/// Most records handed on at once.
const BATCH: usize = 256;
/// Batches that wait between generator and sender.
const BATCHES_AHEAD: usize = 64;
/// Longest that a written record stays in our buffer.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// Longest wait before a request to stop is seen.
const POLL: Duration = Duration::from_millis(50);

/// A request from outside to stop, and what is shown of a run meanwhile.
#[derive(Debug, Default)]
pub struct Control {
    /// 0, or the number of the signal that asks to stop.
    pub stop: std::sync::Arc<AtomicUsize>,
    /// Records written so far.
    pub records: AtomicU64,
    /// Bytes written so far.
    pub bytes: AtomicU64,
}

impl Control {
    fn ending(&self) -> Option<Ending> {
        match self.stop.load(Ordering::Relaxed) as i32 {
            0 => None,
            libc::SIGTERM => Some(Ending::Terminated),
            _ => Some(Ending::Interrupted),
        }
    }

    fn show(&self, sent: &Sent) {
        self.records.store(sent.records, Ordering::Relaxed);
        self.bytes.store(sent.bytes, Ordering::Relaxed);
    }
}

/// When to stop, beside the end of what is generated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// After so many records.
    pub records: Option<u64>,
    /// After so long.
    pub wall: Option<Duration>,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum DriveError<E> {
    /// The generator.
    #[error("cannot generate")]
    Generate(#[source] E),
    /// The sink.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// What a run did.
#[derive(Debug)]
pub struct Driven {
    /// Why it ended.
    pub ending: Ending,
    /// What the sink did.
    pub sent: Sent,
    /// Generated time from the first record to the last.
    pub span_ns: u64,
    /// Time that it took.
    pub wall: Duration,
    /// How late paced records went out.
    pub lateness: Lateness,
}

/// Writes records to the sink until they end, a limit is reached, or a stop
/// is asked for; then finishes the sink, so that a file is whole whenever its
/// sink could be written. With [`Pace::TopSpeed`] `events` are pulled as fast
/// as the sink takes them; else they are generated ahead in this thread while
/// another sends.
///
/// What was done comes back whether or not it failed.
pub fn drive<T: Item, E>(
    events: impl Iterator<Item = Result<Event<T>, E>>,
    sink: &mut dyn Sink<T>,
    pace: Pace,
    threaded: bool,
    limits: Limits,
    control: &Control,
) -> (Driven, Result<(), DriveError<E>>) {
    let begin = Instant::now();
    let mut sender = Sender {
        sink,
        control,
        pace,
        schedule: None,
        lateness: Lateness::default(),
        deadline: limits.wall.map(|wall| begin + wall),
        flushed: begin,
        first_ns: None,
        last_ns: 0,
    };
    let limit = usize::try_from(limits.records.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let events = events.take(limit);
    let result = if threaded { sender.in_two_threads(events) } else { sender.in_one(events) };
    // After a failure nothing is finished: an unfinished file is removed when
    // the sink goes, so that no half trace has the name of a whole one.
    let result = match result {
        Ok(ending) => match sender.sink.finish() {
            Err(SinkError::Closed) => Ok(Ending::Closed),
            Err(error) => Err(DriveError::Sink(error)),
            Ok(()) => Ok(ending),
        },
        Err(DriveError::Sink(SinkError::Closed)) => Ok(Ending::Closed),
        Err(error) => Err(error),
    };
    let mut sent = sender.sink.sent();
    if let Err(DriveError::Sink(SinkError::Full { records, .. })) = &result {
        sent.records = *records;
    }
    control.show(&sent);
    let driven = Driven {
        ending: *result.as_ref().unwrap_or(&Ending::Failed),
        sent,
        span_ns: sender.last_ns.saturating_sub(sender.first_ns.unwrap_or(0)),
        wall: begin.elapsed(),
        lateness: sender.lateness,
    };
    (driven, result.map(|_| ()))
}

struct Sender<'a, T> {
    sink: &'a mut dyn Sink<T>,
    control: &'a Control,
    pace: Pace,
    schedule: Option<Schedule>,
    lateness: Lateness,
    deadline: Option<Instant>,
    flushed: Instant,
    first_ns: Option<u64>,
    last_ns: u64,
}

impl<T: Item> Sender<'_, T> {
    fn in_one<E>(
        &mut self,
        events: impl Iterator<Item = Result<Event<T>, E>>,
    ) -> Result<Ending, DriveError<E>> {
        let mut batch = Vec::with_capacity(BATCH);
        // Small batches at first: what reads a pipe should see something soon.
        let mut size = 1;
        let mut pulled = Instant::now();
        for event in events {
            batch.push(event.map_err(DriveError::Generate)?);
            // A slow generator must not hold records back: look at the clock
            // now and then.
            let slow = batch.len() % 16 == 0 && pulled.elapsed() >= FLUSH_AFTER;
            if batch.len() < size && !slow {
                continue;
            }
            size = (size * 2).min(BATCH);
            if let Some(ending) = self.send_all(&batch)? {
                return Ok(ending);
            }
            batch.clear();
            pulled = Instant::now();
        }
        Ok(self.send_all(&batch)?.unwrap_or(Ending::Done))
    }

    fn in_two_threads<E>(
        &mut self,
        events: impl Iterator<Item = Result<Event<T>, E>>,
    ) -> Result<Ending, DriveError<E>> {
        let (ahead, batches) = bounded::<Vec<Event<T>>>(BATCHES_AHEAD);
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || self.receive(batches));
            let mut batch = Vec::new();
            let mut size = 1;
            let mut failed = None;
            for event in events {
                match event {
                    Ok(event) => batch.push(event),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
                if batch.len() >= size {
                    size = (size * 2).min(BATCH);
                    let full = std::mem::replace(&mut batch, Vec::with_capacity(size));
                    // The sender has ended, for a reason that it gives.
                    if ahead.send(full).is_err() {
                        break;
                    }
                }
            }
            // What was generated before a failure still goes out.
            let _ = ahead.send(batch);
            drop(ahead);
            let sent = match sender.join() {
                Ok(sent) => sent.map_err(DriveError::Sink),
                Err(panic) => std::panic::resume_unwind(panic),
            };
            match failed {
                Some(error) => sent.and(Err(DriveError::Generate(error))),
                None => sent,
            }
        })
    }

    fn receive(&mut self, batches: Receiver<Vec<Event<T>>>) -> Result<Ending, SinkError> {
        make_timers_exact();
        loop {
            match batches.recv_timeout(POLL) {
                Ok(batch) => {
                    if let Some(ending) = self.send_all(&batch)? {
                        return Ok(ending);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.flush_if_due()?;
                    if let Some(ending) = self.must_end() {
                        return Ok(ending);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(Ending::Done),
            }
        }
    }

    /// Sends a batch, each record when it is due; what is due by then goes
    /// out together. Returns why to stop, if so.
    fn send_all(&mut self, batch: &[Event<T>]) -> Result<Option<Ending>, SinkError> {
        if let Some(ending) = self.must_end() {
            return Ok(Some(ending));
        }
        if self.pace == Pace::TopSpeed {
            self.write(batch)?;
            self.flush_if_due()?;
            return Ok(None);
        }
        let mut rest = batch;
        // The due time of the first record of `rest`, if it is known already.
        let mut known = None;
        while let Some(first) = rest.first() {
            let due = known.take().or_else(|| self.due(first)).unwrap_or(0);
            let mut now = now_ns();
            while now < due {
                self.flush_if_due()?;
                if let Some(ending) = self.must_end() {
                    return Ok(Some(ending));
                }
                now = sleep_towards(due);
            }
            self.lateness.record(now - due);
            let mut count = 1;
            for event in &rest[1..] {
                let due = self.due(event).unwrap_or(0);
                if due > now {
                    known = Some(due);
                    break;
                }
                self.lateness.record(now - due);
                count += 1;
            }
            self.write(&rest[..count])?;
            rest = &rest[count..];
        }
        self.flush_if_due()?;
        Ok(None)
    }

    fn due(&mut self, event: &Event<T>) -> Option<u64> {
        let pace = self.pace;
        self.schedule.get_or_insert_with(|| Schedule::new(pace, now_ns())).next(event.time_ns)
    }

    fn write(&mut self, events: &[Event<T>]) -> Result<(), SinkError> {
        if let (Some(first), Some(last)) = (events.first(), events.last()) {
            self.first_ns.get_or_insert(first.time_ns);
            self.last_ns = last.time_ns;
        }
        self.sink.write(events)?;
        self.control.show(&self.sink.sent());
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<(), SinkError> {
        if self.flushed.elapsed() >= FLUSH_AFTER {
            self.sink.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }

    fn must_end(&self) -> Option<Ending> {
        let late = || self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        self.control.ending().or_else(|| late().then_some(Ending::Done))
    }
}
