//! From generated records to a sink: unpaced in one thread, paced in two.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender as Channel, TryRecvError, bounded};

use crate::pace::{Cause, Lateness, Pace, Pacing, Schedule, Waiter, make_timers_exact, now_ns};
use crate::render::Event;
use crate::sink::{InterfaceReport, Item, Sent, Sink, SinkError};
use crate::stats::Ending;

/// Most records handed on at once.
const BATCH: usize = 256;
/// Records that wait between generator and sender, unless said otherwise.
const AHEAD: usize = 16_384;
/// Longest that a written record stays in our buffer.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// Longest wait before a request is seen.
const POLL: Duration = Duration::from_millis(50);
/// How often a sink that waits for its link is asked.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Requests from outside while a run goes on, and what is shown of it meanwhile.
#[derive(Debug, Default)]
pub struct Control {
    /// 0, or the number of the signal that asks to stop.
    pub stop: Arc<AtomicUsize>,
    paused: AtomicBool,
    has_new_pace: AtomicBool,
    new_pace: Mutex<Option<Pace>>,
    progress: Mutex<Progress>,
}

/// What a run has done so far.
#[derive(Debug, Default)]
struct Progress {
    sent: Sent,
    lateness: Lateness,
}

impl Control {
    /// Holds records back until [`Control::resume`]; the time until then does not count.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    /// Goes on after [`Control::pause`].
    pub fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Whether records are held back.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Goes on at another pace.
    pub fn set_pace(&self, pace: Pace) {
        *self.new_pace.lock().unwrap_or_else(PoisonError::into_inner) = Some(pace);
        self.has_new_pace.store(true, Ordering::Release);
    }

    /// What the sink has done so far.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.progress().sent
    }

    /// How late paced records went out since this was asked last, `fresh` taking its place:
    /// the sender waits no longer than that takes.
    pub fn take_lateness(&self, fresh: Lateness) -> Lateness {
        std::mem::replace(&mut self.progress().lateness, fresh)
    }

    fn ending(&self) -> Option<Ending> {
        match self.stop.load(Ordering::Relaxed) as i32 {
            0 => None,
            libc::SIGTERM => Some(Ending::Terminated),
            _ => Some(Ending::Interrupted),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_new_pace(&self) -> Option<Pace> {
        if !self.has_new_pace.load(Ordering::Relaxed) {
            return None;
        }
        self.has_new_pace.store(false, Ordering::Relaxed);
        self.new_pace.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How fast records go out, and how exactly.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How fast.
    pub pace: Pace,
    /// How the sender waits.
    pub pacing: Pacing,
    /// Records that the generator may be ahead of the sender.
    pub ahead: usize,
}

impl From<Pace> for Timing {
    fn from(pace: Pace) -> Timing {
        Timing { pace, pacing: Pacing::default(), ahead: AHEAD }
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
    /// How late paced records went out, since [`Control::take_lateness`] was asked last.
    pub lateness: Lateness,
    /// What went to interfaces, and what they have counted themselves.
    pub interfaces: Vec<InterfaceReport>,
}

/// Writes records to the sink until they end, a limit is reached, or a stop
/// is asked for; then finishes the sink, so that a file is whole whenever its
/// sink could be written. In one thread `events` are pulled as fast
/// as the sink takes them; in two they are generated ahead in this thread while
/// another sends.
///
/// What was done comes back whether or not it failed.
pub fn drive<T: Item, E>(
    events: impl Iterator<Item = Result<Event<T>, E>>,
    sink: &mut dyn Sink<T>,
    timing: impl Into<Timing>,
    threaded: bool,
    limits: Limits,
    control: &Control,
) -> (Driven, Result<(), DriveError<E>>) {
    let Timing { pace, pacing, ahead } = timing.into();
    let begin = Instant::now();
    let mut sender = Sender {
        sink,
        control,
        schedule: Schedule::new(pace, now_ns()),
        waiter: Waiter::new(pacing),
        cause: Cause::Woken,
        arrived_ns: 0,
        late_ns: Vec::with_capacity(BATCH),
        written_ns: (0, 0),
        deadline: limits.wall.and_then(|wall| begin.checked_add(wall)),
        flushed: begin,
        has_begun: false,
        first_ns: None,
        last_ns: 0,
    };
    let limit = usize::try_from(limits.records.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let events = events.take(limit);
    let result = if threaded {
        sender.in_two_threads(events, ahead.div_ceil(BATCH))
    } else {
        sender.in_one(events)
    };
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
    let sent = sender.sink.sent();
    control.progress().sent = sent;
    let driven = Driven {
        ending: *result.as_ref().unwrap_or(&Ending::Failed),
        sent,
        span_ns: sender.last_ns.saturating_sub(sender.first_ns.unwrap_or(0)),
        wall: begin.elapsed(),
        lateness: control.take_lateness(Lateness::default()),
        interfaces: sender.sink.interfaces(),
    };
    (driven, result.map(|_| ()))
}

struct Sender<'a, T> {
    sink: &'a mut dyn Sink<T>,
    control: &'a Control,
    schedule: Schedule,
    waiter: Waiter,
    /// Why what goes out now is as late as it is.
    cause: Cause,
    /// When the batch came, if it was waited for.
    arrived_ns: u64,
    /// How late the records are that are about to be written.
    late_ns: Vec<u64>,
    /// When the last write began and ended.
    written_ns: (u64, u64),
    deadline: Option<Instant>,
    flushed: Instant,
    has_begun: bool,
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
        batches_ahead: usize,
    ) -> Result<Ending, DriveError<E>> {
        let (ahead, batches) = bounded::<Vec<Event<T>>>(batches_ahead.max(1));
        // Batches come back to be filled again.
        let (back, spares) = bounded::<Vec<Event<T>>>(batches_ahead.max(1));
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || self.receive(&batches, &back));
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
                    let spare = spares.try_recv().unwrap_or_default();
                    let full = std::mem::replace(&mut batch, spare);
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

    fn receive(
        &mut self,
        batches: &Receiver<Vec<Event<T>>>,
        back: &Channel<Vec<Event<T>>>,
    ) -> Result<Ending, SinkError> {
        make_timers_exact();
        // The first record is due when it comes: until then nothing is late.
        let mut begun = false;
        loop {
            let mut received = batches.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            });
            self.arrived_ns = 0;
            if matches!(received, Err(RecvTimeoutError::Timeout)) {
                received = batches.recv_timeout(POLL);
                self.arrived_ns = now_ns();
            }
            match received {
                Ok(mut batch) => {
                    if !begun && !batch.is_empty() {
                        begun = true;
                        self.schedule.begin(now_ns());
                    }
                    if let Some(ending) = self.send_all(&batch)? {
                        return Ok(ending);
                    }
                    batch.clear();
                    // Nobody takes them once all is generated.
                    let _ = back.try_send(batch);
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(ending) = self.attend()? {
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
        let mut rest = batch;
        while let Some(first) = rest.first() {
            if let Some(ending) = self.attend()? {
                return Ok(Some(ending));
            }
            let mut count = 1;
            match self.schedule.due(first.time_ns) {
                None => count = rest.len(),
                Some(due) => {
                    let mut now = now_ns();
                    self.cause = self.cause_of(due, now);
                    let mut due = due;
                    while now < due {
                        let mut schedule = self.schedule.clone();
                        now = self.waiter.wait(due, || {
                            // As for the record after it, below.
                            std::hint::black_box(schedule.due(first.time_ns));
                            self.sink.warm_up(first);
                        });
                        if now < due {
                            if let Some(ending) = self.attend()? {
                                return Ok(Some(ending));
                            }
                            // It may have another pace by now.
                            // At top speed it is due now.
                            due = self.schedule.due(first.time_ns).unwrap_or(now);
                        }
                    }
                    self.late_ns.push(now - due);
                    self.schedule.advance(first.item.bytes());
                    for event in &rest[1..] {
                        let due = self.schedule.due(event.time_ns).unwrap_or(now);
                        if due > now {
                            break;
                        }
                        self.late_ns.push(now - due);
                        self.schedule.advance(event.item.bytes());
                        count += 1;
                    }
                }
            }
            if let Some(ending) = self.write(&rest[..count])? {
                return Ok(Some(ending));
            }
            rest = &rest[count..];
        }
        Ok(None)
    }

    /// Why a record that is due at `due` goes out after it.
    fn cause_of(&self, due: u64, now: u64) -> Cause {
        if due > now {
            Cause::Woken
        } else if due < self.arrived_ns {
            Cause::Starved
        } else if (self.written_ns.0..=self.written_ns.1).contains(&due) {
            Cause::Blocked
        } else {
            // Those before it were late already.
            self.cause
        }
    }

    fn write(&mut self, events: &[Event<T>]) -> Result<Option<Ending>, SinkError> {
        if let (Some(first), Some(last)) = (events.first(), events.last()) {
            self.first_ns.get_or_insert(first.time_ns);
            self.last_ns = last.time_ns;
        }
        let mut rest = events;
        loop {
            let begin = now_ns();
            let result = self.sink.write(rest);
            self.written_ns = (begin, now_ns());
            // Only now, so that what is due waits for nothing.
            let mut progress = self.control.progress();
            progress.sent = self.sink.sent();
            self.late_ns.drain(..).for_each(|late| progress.lateness.record(self.cause, late));
            drop(progress);
            match result {
                Ok(()) => {
                    // What comes first leaves at once: somebody may wait for it.
                    if !std::mem::replace(&mut self.has_begun, true) {
                        self.flush()?;
                    }
                    return Ok(None);
                }
                Err(SinkError::NotReady { unsent, .. }) => {
                    rest = &rest[rest.len().saturating_sub(unsent)..];
                    let ending = self.hold(|sender| Ok(!sender.sink.ready()?))?;
                    if ending.is_some() {
                        return Ok(ending);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends nothing as long as it must wait; the time until then does not count. Returns why
    /// to stop, if so.
    fn hold(
        &mut self,
        mut must_wait: impl FnMut(&mut Self) -> Result<bool, SinkError>,
    ) -> Result<Option<Ending>, SinkError> {
        let begin = now_ns();
        while must_wait(self)? {
            if let Some(ending) = self.must_end() {
                return Ok(Some(ending));
            }
            std::thread::sleep(ASK_EVERY);
            self.flush_if_due()?;
        }
        self.schedule.shift(now_ns() - begin);
        Ok(None)
    }

    /// Does what is asked from outside, and what is due beside sending. Returns why to stop,
    /// if so.
    fn attend(&mut self) -> Result<Option<Ending>, SinkError> {
        self.flush_if_due()?;
        if self.control.is_paused() {
            let ending = self.hold(|sender| Ok(sender.control.is_paused()))?;
            if ending.is_some() {
                return Ok(ending);
            }
        }
        if let Some(pace) = self.control.take_new_pace() {
            self.schedule.set_pace(pace, now_ns());
        }
        Ok(self.must_end())
    }

    fn flush_if_due(&mut self) -> Result<(), SinkError> {
        if self.flushed.elapsed() >= FLUSH_AFTER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush()?;
        self.flushed = Instant::now();
        Ok(())
    }

    fn must_end(&self) -> Option<Ending> {
        let late = || self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        self.control.ending().or_else(|| late().then_some(Ending::Done))
    }
}
