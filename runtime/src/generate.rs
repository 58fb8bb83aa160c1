//! A bundle's records in order of time, endless if wished.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, RecvError, Sender, TryRecvError, TrySendError, bounded};
use ns_model_format::{Bundle, FlowRate};

use crate::attributes::{Arrivals, Batcher, Draws, Preparer};
use crate::autoregressive::{AutoregressiveEngine, Tables};
use crate::common::Common;
use crate::condition::Condition;
use crate::counters::{Counters, GenerationStats};
use crate::device::Device;
use crate::doppelganger::DoppelgangerEngine;
use crate::draw::{Distinct, DrawPlan, Drawer};
use crate::error::RuntimeError;
use crate::form::Form;
use crate::given::GivenFlows;
use crate::networks::Networks;
use crate::render::{Event, Render};
use crate::rolling::Slots;
use crate::shared::{FlowLimits, Shared};
use crate::timeline::Key;
use crate::worker::Worker;

/// Batches that a worker has handed over and the merge has not taken yet.
const BATCHES_AHEAD: usize = 16;
const MOST_WORKERS: usize = 1024;
/// A merge has all of them open.
const MOST_PARTS: u64 = 512;
const MOST_TRIES: usize = 1_000_000;
const MOST_SLOTS: usize = 1 << 16;
/// The queue numbers its places with 32 bits and may outgrow its cap twofold.
pub(crate) const MOST_QUEUED: usize = 1 << 28;

/// Records that may wait in a worker, unless said otherwise.
pub(crate) const QUEUE_CAP: usize = 1 << 18;

/// What to generate, and with what means. The means (`threads`, `slots`,
/// `queue_cap`) never change the output, on a CPU.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Names the run: the same seed and bundle give the same records.
    pub seed: u64,
    /// Workers, a thread each; a single one runs within [`Stream`] itself.
    pub threads: usize,
    /// Flows that a worker computes together.
    pub slots: usize,
    /// Records that may wait for their turn in a worker before it stops
    /// running ahead. None is too few: what flows in progress have computed always has room, up
    /// to four steps each.
    pub queue_cap: usize,
    /// This many flows, all of them to their end, past the trained span if need be.
    pub flows: Option<u64>,
    /// Records earlier than this, in nanoseconds from the beginning of the run.
    pub duration_ns: Option<u64>,
    /// Without end. With neither this nor one of the limits above: the flows
    /// that start within one trained span, all of them to their end.
    pub forever: bool,
    /// Flows arrive so many times as densely as trained; the times within a flow stay.
    pub flow_rate: FlowRate,
    /// A flow that never says stop is ended after so many records.
    pub max_flow_records: u32,
    /// What is generated: flows by their attributes, records by their
    /// measurements. Attributes are drawn given the conditions on them, or again until they
    /// meet them; records that do not meet theirs are left out.
    pub conditions: Vec<Condition>,
    /// Times that a flow's attributes are drawn at most; a flow that never meets
    /// the conditions is left out and counted.
    pub condition_tries: u32,
    /// Flows with these attributes, one after another, and round again where
    /// more are asked for; without any limit above, each once.
    pub attributes: Option<Arc<GivenFlows>>,
    /// Only part of the run's flows: with `(k, n)` those whose numbers leave `k` when
    /// divided by `n`. The `n` parts together, merged in the order that events have,
    /// are the run.
    pub part: (u64, u64),
    /// The ONNX Runtime library, which then runs all graphs. Otherwise those of a few operations
    /// are run here, on a CPU, and the others by a library that [`crate::locate::locate`] finds.
    pub onnxruntime: Option<PathBuf>,
    /// What the graphs are run on.
    pub device: Device,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            seed: 0,
            threads: 1,
            slots: 256,
            queue_cap: QUEUE_CAP,
            flows: None,
            duration_ns: None,
            forever: false,
            flow_rate: 1.0.into(),
            max_flow_records: 1_000_000,
            conditions: Vec::new(),
            condition_tries: 1_000,
            attributes: None,
            part: (0, 1),
            onnxruntime: None,
            device: Device::Auto,
        }
    }
}

impl GenerateOptions {
    /// Checks that every option is in its range, before anything is loaded.
    ///
    /// # Errors
    /// One is not.
    pub fn check(&self) -> Result<(), RuntimeError> {
        let within = |option, found: usize, most: usize, expected| {
            if (1..=most).contains(&found) {
                return Ok(());
            }
            Err(RuntimeError::Option { option, found: found.to_string(), expected })
        };
        within("threads", self.threads, MOST_WORKERS, "1 to 1024")?;
        within("slots", self.slots, MOST_SLOTS, "1 to 65536")?;
        within("queue_cap", self.queue_cap, MOST_QUEUED, "1 to 268435456")?;
        within("condition_tries", self.condition_tries as usize, MOST_TRIES, "1 to 1000000")?;
        within("max_flow_records", self.max_flow_records as usize, usize::MAX, "1 or more")?;
        let (part, parts) = self.part;
        if part >= parts || parts > MOST_PARTS {
            let (found, expected) = (format!("{part} of {parts}"), "0 of 1 to 511 of 512");
            return Err(RuntimeError::Option { option: "part", found, expected });
        }
        if !self.flow_rate.is_valid() {
            let (from, to) = self.flow_rate.ends();
            let found = if from == to { to.to_string() } else { format!("{from} to {to}") };
            let expected = "0.000001 to 1000000";
            return Err(RuntimeError::Option { option: "flow_rate", found, expected });
        }
        Ok(())
    }

    /// Checks what the options say of a bundle's fields, before anything is loaded.
    ///
    /// # Errors
    /// Conditions that cannot be met, given attributes that do not fit.
    pub fn check_against(&self, bundle: &Bundle) -> Result<(), RuntimeError> {
        let manifest = bundle.manifest();
        let model = manifest.model.autoregressive.as_ref();
        DrawPlan::new(&manifest.schema, model, self).map(drop)
    }

    /// Ends of the arrivals: flow numbers and starts below these are generated.
    fn arrivals_end(&self, span_ns: u64) -> (u64, u64) {
        let unlimited = self.flows.is_none() && self.duration_ns.is_none() && !self.forever;
        match &self.attributes {
            Some(given) if unlimited => (given.len() as u64, u64::MAX),
            _ => {
                let span = if unlimited { span_ns } else { u64::MAX };
                (self.flows.unwrap_or(u64::MAX), self.duration_ns.unwrap_or(span))
            }
        }
    }
}

/// A bundle whose graphs are loaded and checked, ready to stream.
pub struct Generator {
    bundle: Arc<Bundle>,
    options: GenerateOptions,
    /// A worker's, then a chunk's.
    engines: Vec<Vec<Box<dyn Networks>>>,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Generator {
    /// Opens the bundle in a file; see [`Generator::open`].
    ///
    /// # Errors
    /// It cannot be read, is damaged, or of another version; as [`Generator::open`].
    pub fn from_path(path: &Path, options: GenerateOptions) -> Result<Generator, RuntimeError> {
        Generator::open(Arc::new(Bundle::open(path)?), options)
    }

    /// Opens a bundle in memory; see [`Generator::open`].
    ///
    /// # Errors
    /// It is damaged or of another version; as [`Generator::open`].
    pub fn from_bytes(bytes: &[u8], options: GenerateOptions) -> Result<Generator, RuntimeError> {
        Generator::open(Arc::new(Bundle::from_bytes(bytes)?), options)
    }

    /// What is generated from.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// Finds ONNX Runtime and loads the graphs of all the bundle's chunks, once
    /// a worker: as much memory as the graphs have bytes, times the workers.
    ///
    /// # Errors
    /// Options out of range; no usable ONNX Runtime or device; graphs that are not what
    /// the manifest says, or that do what a bundle's graphs must not.
    pub fn open(bundle: Arc<Bundle>, options: GenerateOptions) -> Result<Generator, RuntimeError> {
        options.check()?;
        options.check_against(&bundle)?;
        let tables = match &bundle.manifest().model.autoregressive {
            Some(model) => {
                let bytes = bundle.file(&model.tables).unwrap_or_default();
                Some(Arc::new(Tables::read(model, bytes)?))
            }
            None => None,
        };
        let engines = (0..options.threads)
            .map(|_| load(&bundle, tables.as_ref(), &options))
            .collect::<Result<_, _>>()?;
        Ok(Generator { bundle, options, engines })
    }

    /// Starts generating. Events come in order of time, then flow, then record.
    ///
    /// # Errors
    /// A worker thread cannot be started.
    pub fn stream<R: Render>(self, render: R) -> Result<Stream<R::Item>, RuntimeError> {
        start(&self.bundle, &self.options, self.engines, render)
    }
}

/// A worker's networks: one a chunk of the span, or one for all of it.
fn load(
    bundle: &Bundle,
    tables: Option<&Arc<Tables>>,
    options: &GenerateOptions,
) -> Result<Vec<Box<dyn Networks>>, RuntimeError> {
    let (onnxruntime, device) = (options.onnxruntime.as_deref(), options.device);
    let model = &bundle.manifest().model;
    if let (Some(model), Some(tables)) = (&model.autoregressive, tables) {
        let engine =
            AutoregressiveEngine::load(bundle, model, tables.clone(), onnxruntime, device)?;
        return Ok(vec![Box::new(engine)]);
    }
    let load = |chunk| {
        let engine = DoppelgangerEngine::load(bundle, chunk, onnxruntime, device)?;
        Ok(Box::new(engine) as Box<dyn Networks>)
    };
    model.chunks.iter().map(load).collect()
}

/// Starts a worker for every set of networks: one a chunk of the span.
pub(crate) fn start<N: Networks, R: Render>(
    bundle: &Bundle,
    options: &GenerateOptions,
    mut networks: Vec<Vec<N>>,
    render: R,
) -> Result<Stream<R::Item>, RuntimeError> {
    let manifest = bundle.manifest();
    let process = &manifest.timeline.arrivals;
    let forms = Form::of(manifest);
    if forms.is_empty() {
        return Err(RuntimeError::Unsupported { what: "a bundle without chunks".to_owned() });
    }
    let limits = FlowLimits {
        records: options.max_flow_records,
        end_ns: options.duration_ns.unwrap_or(u64::MAX),
    };
    let mut plan = DrawPlan::new(&manifest.schema, forms[0].tokens(), options)?;
    if let Some(first) = networks.first_mut().and_then(|networks| networks.first_mut()) {
        plan.prepare(first, &forms[0], &manifest.schema, options.seed)?;
    }
    let counters = Arc::new(Counters::default());
    let shared = Arc::new(Shared::new(
        manifest,
        limits,
        options.seed,
        plan.selection.clone(),
        counters.clone(),
    ));
    let stop = Arc::new(AtomicBool::new(false));
    let count = networks.len() as u64;
    let (part, parts) = options.part;
    let arrivals = |worker| {
        let end = options.arrivals_end(process.span_ns());
        Arrivals::new(process.clone(), options.seed, options.flow_rate, worker, end)
            .of_given(plan.given())
    };
    let common = plan.is_in_common(&manifest.schema, &forms).then(|| {
        let distinct = Distinct::new(process.span_ns());
        Arc::new(Common::new(arrivals((0, 1)), options.part, networks.len(), distinct))
    });
    let mut workers = networks.into_iter().enumerate().map(|(number, networks)| {
        let slots = networks.into_iter().zip(&forms).map(|(networks, form)| {
            Slots::new(networks, render.clone(), shared.clone(), form, options.slots)
        });
        let draws = match &common {
            Some(common) => Draws::Common(common.clone(), number),
            None => Draws::Own,
        };
        let drawer = Drawer::new(plan.clone(), options.seed, &forms, counters.clone());
        let batcher = Batcher::new(shared.clone(), &forms, drawer);
        let arrivals = arrivals((part + number as u64 * parts, count * parts));
        let preparer = Preparer::new(arrivals, shared.clone(), draws, batcher);
        Worker::new(slots.collect(), preparer, options.queue_cap, stop.clone())
    });
    let source: Box<dyn Source<R::Item>> = match (count, workers.next()) {
        (1, Some(only)) => Box::new(only),
        (_, first) => {
            let mut merge = Merge { feeds: Vec::new(), lent: None, stop: stop.clone() };
            for worker in first.into_iter().chain(workers).enumerate() {
                merge.feeds.push(Feed::start(worker)?);
            }
            Box::new(merge)
        }
    };
    Ok(Stream { source: Some(source), ready: VecDeque::new(), limit: Key::MAX, counters })
}

/// Where a stream's events come from.
trait Source<T>: Send {
    /// Puts the next events into `ready` and says how far they are the next: to this key. What
    /// lies after it stays there until the next call. `None` if there are no more.
    fn fill(&mut self, ready: &mut VecDeque<Event<T>>) -> Result<Option<Key>, RuntimeError>;
}

impl<N: Networks, R: Render> Source<R::Item> for Worker<N, R> {
    fn fill(&mut self, ready: &mut VecDeque<Event<R::Item>>) -> Result<Option<Key>, RuntimeError> {
        Ok(Worker::fill(self, ready)?.then_some(Key::MAX))
    }
}

/// Generated records in order of time, flow, record. Dropping it stops its workers.
pub struct Stream<T> {
    /// `None` once it has ended or failed.
    source: Option<Box<dyn Source<T>>>,
    ready: VecDeque<Event<T>>,
    /// Those that are ready are the next as far as this.
    limit: Key,
    counters: Arc<Counters>,
}

impl<T> std::fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<T> Stream<T> {
    /// What has been done so far.
    #[must_use]
    pub fn stats(&self) -> GenerationStats {
        self.counters.read()
    }

    /// The same, for another thread to read while this one takes records.
    #[must_use]
    pub fn stats_reader(&self) -> StatsReader {
        StatsReader(self.counters.clone())
    }
}

/// What a stream has at some moment: [`Stream::next_due`].
#[derive(Clone, Debug, PartialEq)]
pub enum Due<T> {
    /// An event whose time has come.
    Now(Event<T>),
    /// Nothing before this time, in nanoseconds from the beginning of the run.
    At(u64),
    /// Nothing any more.
    Never,
}

impl<T> Stream<T> {
    /// The next event if its time has come by the caller's clock, which says nanoseconds
    /// from the beginning of the run; else when that will be. Asked again until it is not
    /// [`Due::Now`], it gives all that is due. It computes events in advance, many at once,
    /// and with one worker in the caller's thread: a call in some hundreds takes as long as
    /// a step of the networks.
    ///
    /// # Errors
    /// As the iterator's: generation failed, and has ended.
    #[inline]
    pub fn next_due(&mut self, now_ns: u64) -> Result<Due<T>, RuntimeError> {
        self.fill()?;
        match self.ready.front() {
            Some(event) if event.time_ns > now_ns => Ok(Due::At(event.time_ns)),
            _ => Ok(self.ready.pop_front().map_or(Due::Never, Due::Now)),
        }
    }

    /// Makes sure that an event is ready, unless there are no more.
    #[inline]
    fn fill(&mut self) -> Result<(), RuntimeError> {
        while self.ready.front().is_none_or(|event| event.key() > self.limit)
            && let Some(source) = &mut self.source
        {
            match source.fill(&mut self.ready) {
                Ok(Some(limit)) => self.limit = limit,
                Ok(None) => self.source = None,
                Err(error) => {
                    self.source = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl<T> Iterator for Stream<T> {
    type Item = Result<Event<T>, RuntimeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.fill() {
            Ok(()) => self.ready.pop_front().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }
}

/// Reads a stream's [`GenerationStats`] from anywhere.
#[derive(Clone, Debug)]
pub struct StatsReader(Arc<Counters>);

impl StatsReader {
    /// What has been done so far.
    #[must_use]
    pub fn read(&self) -> GenerationStats {
        self.0.read()
    }
}

type Batch<T> = Result<VecDeque<Event<T>>, RuntimeError>;

/// A worker thread, seen from the merge.
struct Feed<T> {
    /// `None` when the feed is dropped: its worker's next send fails then.
    batches: Option<Receiver<Batch<T>>>,
    /// Set when the merge waits for this worker.
    waited_for: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    ready: VecDeque<Event<T>>,
}

/// The merge, seen from a worker.
struct Link<T> {
    batches: Sender<Batch<T>>,
    waited_for: Arc<AtomicBool>,
}

impl<T: Send + 'static> Feed<T> {
    fn start<N: Networks, R: Render<Item = T>>(
        (number, mut worker): (usize, Worker<N, R>),
    ) -> Result<Feed<T>, RuntimeError> {
        let (sender, batches) = bounded(BATCHES_AHEAD);
        let waited_for = Arc::new(AtomicBool::new(false));
        let link = Link { batches: sender, waited_for: waited_for.clone() };
        let run = move || {
            let ended = std::panic::catch_unwind(AssertUnwindSafe(|| send(&mut worker, &link)));
            if ended.is_err() {
                let reason = "stopped by a panic".to_owned();
                // Nobody listens once the stream is dropped.
                let _ = link.batches.send(Err(RuntimeError::Worker { worker: number, reason }));
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("generate-{number}"))
            .spawn(run)
            .map_err(|error| RuntimeError::Worker { worker: number, reason: error.to_string() })?;
        let (batches, thread) = (Some(batches), Some(thread));
        Ok(Feed { batches, waited_for, thread, ready: VecDeque::new() })
    }
}

fn send<N: Networks, R: Render>(worker: &mut Worker<N, R>, link: &Link<R::Item>) {
    let mut like_the_last = 0;
    loop {
        // Grown from nothing, all would be moved a second time.
        let mut batch = VecDeque::with_capacity(like_the_last);
        let message = match worker.fill(&mut batch) {
            Ok(true) => {
                like_the_last = batch.len();
                Ok(batch)
            }
            // The end is the channel's end.
            Ok(false) => return,
            Err(error) => Err(error),
        };
        let last = message.is_err();
        if !send_while_working(worker, link, message) || last {
            return;
        }
    }
}

/// Sends a message, and works ahead as long as there is no room for it: events come in bursts,
/// and who would wait for the others has them wait later. Returns whether to go on.
fn send_while_working<N: Networks, R: Render>(
    worker: &mut Worker<N, R>,
    link: &Link<R::Item>,
    mut message: Batch<R::Item>,
) -> bool {
    if link.waited_for.swap(false, Ordering::Relaxed) {
        worker.is_waited_for();
    }
    loop {
        message = match link.batches.try_send(message) {
            Err(TrySendError::Full(message)) => message,
            sent => return sent.is_ok(),
        };
        match worker.work_ahead() {
            Ok(true) => {}
            Ok(false) => return link.batches.send(message).is_ok(),
            Err(error) => {
                // First what came before it. Nobody listens once the stream is dropped.
                let _ = link.batches.send(message).and_then(|()| link.batches.send(Err(error)));
                return false;
            }
        }
    }
}

impl<T> Feed<T> {
    /// Waits until an event is ready; `false` if there are no more.
    fn wait(&mut self) -> Result<bool, RuntimeError> {
        while self.ready.is_empty() {
            let Some(batches) = &self.batches else { return Ok(false) };
            let batch = batches.try_recv().or_else(|error| match error {
                TryRecvError::Disconnected => Err(RecvError),
                TryRecvError::Empty => {
                    self.waited_for.store(true, Ordering::Relaxed);
                    batches.recv()
                }
            });
            match batch {
                Ok(batch) => self.ready = batch?,
                Err(RecvError) => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic was caught in the thread and has been reported.
            let _ = thread.join();
        }
    }
}

/// Several workers' events in one order.
struct Merge<T> {
    feeds: Vec<Feed<T>>,
    /// The feed whose queue is with the stream.
    lent: Option<usize>,
    stop: Arc<AtomicBool>,
}

impl<T> Drop for Merge<T> {
    fn drop(&mut self) {
        // All are told before the first is waited for.
        self.stop.store(true, Ordering::Relaxed);
        self.feeds.iter_mut().for_each(|feed| feed.batches = None);
    }
}

impl<T: Send> Source<T> for Merge<T> {
    /// Lends the queue of the feed with the earliest event, which gives all that precede the
    /// others'.
    fn fill(&mut self, ready: &mut VecDeque<Event<T>>) -> Result<Option<Key>, RuntimeError> {
        if let Some(lent) = self.lent.take() {
            std::mem::swap(ready, &mut self.feeds[lent].ready);
        }
        let mut index = 0;
        while let Some(feed) = self.feeds.get_mut(index) {
            if feed.wait()? {
                index += 1;
            } else {
                self.feeds.remove(index);
            }
        }
        // No two workers have events of one flow, so no two keys are the same.
        let (mut first, mut limit) = (None, Key::MAX);
        for (at, feed) in self.feeds.iter().enumerate() {
            let Some(event) = feed.ready.front() else { continue };
            match &mut first {
                Some((key, _)) if event.key() > *key => limit = limit.min(event.key()),
                _ => {
                    let before = first.replace((event.key(), at));
                    limit = before.map_or(limit, |(key, _)| key);
                }
            }
        }
        let Some((_, at)) = first else { return Ok(None) };
        std::mem::swap(ready, &mut self.feeds[at].ready);
        self.lent = Some(at);
        Ok(Some(limit))
    }
}

#[cfg(test)]
mod tests;
