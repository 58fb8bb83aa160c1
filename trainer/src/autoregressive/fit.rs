//! Training: the variables' networks, each on its own, then the records'.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::{Device, Result, Tensor};
use ns_model_format::random::{Purpose, Stream};
use serde::{Deserialize, Serialize};

use super::chain::Chain;
use super::conditional::{self, ConditionalWeights, Parts};
use super::records::{RecordNetwork, RecordWeights, Widths, batches};
use super::tokens::Flows;
use crate::arrays::Arrays;
use crate::model::ops::threads::on_threads;
use crate::model::parameter::{Adam, Parameter};

/// Of so many flows one is looked at to end training in time, and not learned from.
const VALIDATION: usize = 10;
/// Streams of the parts of training are so far apart.
const SEEDS: u64 = 1 << 20;

/// How the networks are built and trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Options {
    /// Width of the attribute networks.
    pub(crate) units: usize,
    pub(crate) widths: Widths,
    pub(crate) learning_rate: f64,
    pub(crate) weight_decay: f64,
    /// Passes over the flows; `None` for as many as the data needs.
    pub(crate) epochs: Option<u64>,
}

/// Which flows are learned from, and which are not.
pub(crate) fn divided(flows: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..flows).collect();
    Stream::new(seed, Purpose::Shuffle, u64::MAX).shuffle(&mut order);
    let validation = order.split_off(flows - flows / VALIDATION);
    (order, validation)
}

/// The networks of all variables, and how their training ended.
pub(crate) struct Conditionals {
    pub(crate) weights: Vec<ConditionalWeights>,
    /// Whether training was to go on to its end: else some networks are as they were then,
    /// or know no more than how frequent tokens are.
    pub(crate) whole: bool,
    /// Networks that were ended by the time.
    pub(crate) cut: usize,
}

/// Trains the networks of all variables, as many at once as there are threads. Told of
/// how many are done, `watch` says whether to go on.
///
/// Each has a part of the `time`, if that is limited, by what a step costs: all variables
/// know something then, and what one leaves is there for those after it.
pub(crate) fn conditionals(
    chain: &Chain,
    flows: &Flows,
    (options, seed): (&Options, u64),
    threads: usize,
    time: Option<Duration>,
    watch: &mut dyn FnMut(usize) -> bool,
) -> Result<Conditionals> {
    let (train, validation) = divided(flows.len(), seed);
    let parts = Parts { train: &train, validation: &validation };
    let count = chain.variables.len() - 1;
    let (next, done, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let (begin, cut) = (Instant::now(), AtomicUsize::new(0));
    let cost = |at: usize| (options.units + chain.variables[at].size) as f64;
    let all: f64 = (1..=count).map(cost).sum();
    // Those begun before a variable, the last of the chain first, leave it the rest.
    let share = |at: usize| {
        let before: f64 = (at + 1..=count).map(cost).sum();
        ((before + threads as f64 * cost(at)) / all).min(1.0)
    };
    type Trained = Option<Result<(ConditionalWeights, bool)>>;
    let results: Mutex<Vec<Trained>> = Mutex::new((0..count).map(|_| None).collect());
    // Only this thread asks; the others see what it was told.
    let work = |mut watch: Option<&mut dyn FnMut(usize) -> bool>| {
        loop {
            // What is long is begun first: variables of many tokens are last in the chain.
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            let at = count - index;
            let seed = seed.wrapping_add(SEEDS.wrapping_mul(at as u64));
            let part = |time: Duration| Duration::try_from_secs_f64(time.as_secs_f64() * share(at));
            // What is no duration is too long to matter.
            let time = time.and_then(|time| part(time).ok());
            let mut late = false;
            let mut go_on = || {
                let told = watch.as_mut().is_none_or(|watch| watch(done.load(Ordering::Relaxed)));
                stop.fetch_or(!told, Ordering::Relaxed);
                late = time.is_some_and(|time| begin.elapsed() >= time);
                !late && !stop.load(Ordering::Relaxed)
            };
            let trained = on_threads(1, || {
                let how = (options.units, options.epochs == Some(0));
                conditional::train((chain, at), flows, parts, how, seed, &mut go_on)
            });
            stop.fetch_or(trained.is_err(), Ordering::Relaxed);
            done.fetch_add(1, Ordering::Relaxed);
            if late && trained.as_ref().is_ok_and(|(_, to_its_end)| !to_its_end) {
                cut.fetch_add(1, Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner)[at - 1] = Some(trained);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            scope.spawn(|| work(None));
        }
        work(Some(watch));
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let weights = results.into_iter().flatten().map(|result| Ok(result?.0));
    let weights = weights.collect::<Result<Vec<_>>>()?;
    Ok(Conditionals { weights, whole: !stop.into_inner(), cut: cut.into_inner() })
}

/// The training of a record network.
pub(crate) struct RecordTraining<'a> {
    network: RecordNetwork,
    flows: &'a Flows,
    train: Vec<usize>,
    validation: Vec<Vec<usize>>,
    adam: Adam,
    averaged: Vec<Tensor>,
    /// The best average there was, by the loss of the flows that are not learned from.
    best: Option<Vec<Vec<f32>>>,
    seed: u64,
    state: RecordState,
    /// The batches of the epoch, once it has begun.
    order: Vec<Vec<usize>>,
    epochs: u64,
    /// Batches of an epoch, about.
    batches: u64,
    sizes: (usize, usize),
}

/// How far a training is, beside its weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecordState {
    epoch: u64,
    /// Batches of the epoch that were visited.
    at: u64,
    steps: u64,
    /// Steps of Adam: one a window.
    adam_steps: i32,
    /// Epochs without a better loss.
    since: u32,
    /// Summed over the records of the epoch so far.
    loss: f64,
    records: u64,
    best: Option<f64>,
    last: Losses,
}

/// What training is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Losses {
    /// Nats a record, of the epoch so far.
    pub(crate) train: f64,
    /// Of the flows that are not learned from, after the last epoch, if one is over.
    pub(crate) validation: Option<f64>,
}

/// Steps that data are trained for at most, about; small ones end before, by [`PATIENCE`], and
/// large ones see each flow a few times. A third of them, at half the rate, left 0.7 nats a record of
/// a capture of 66,000 packets unlearned, and neither twice nor four times the width made up for it.
const STEPS: u64 = 7500;
const FEWEST_EPOCHS: u64 = 4;
const MOST_EPOCHS: u64 = 120;
/// Epochs without a better loss that end training.
const PATIENCE: u32 = 25;
/// Records that biases are calibrated by, about.
const CALIBRATED: usize = 200_000;

/// Most flows and records of a batch. Larger data take larger ones: steps cost less a
/// record then.
fn batch_sizes(records: usize) -> (usize, usize) {
    let growth = (records / 50_000).clamp(1, 8);
    (48 * growth, 1500 * growth)
}

fn epochs_of(batches: u64, epochs: Option<u64>) -> u64 {
    let by_steps = STEPS.div_ceil(batches.max(1)).clamp(FEWEST_EPOCHS, MOST_EPOCHS);
    epochs.unwrap_or(by_steps)
}

/// Batches of an epoch, about.
pub(crate) fn batches_an_epoch(flows: &Flows) -> u64 {
    let (train, _) = divided(flows.len(), 0);
    let sizes = batch_sizes(flows.since_us.len());
    let mut stream = Stream::new(0, Purpose::Shuffle, u64::MAX - 1);
    batches(flows, &train, sizes, &mut stream).len() as u64
}

/// Steps of training, about.
pub(crate) fn steps(batches: u64, epochs: Option<u64>) -> u64 {
    epochs_of(batches, epochs).saturating_mul(batches)
}

impl<'a> RecordTraining<'a> {
    pub(crate) fn new(
        chain: &Chain,
        flows: &'a Flows,
        (options, seed): (&Options, u64),
        device: &Device,
    ) -> Result<RecordTraining<'a>> {
        let network = RecordNetwork::new(chain, options.widths, seed, device)?;
        let (train, validation) = divided(flows.len(), seed);
        let sizes = batch_sizes(flows.since_us.len());
        let mut stream = Stream::new(seed, Purpose::Shuffle, u64::MAX - 1);
        let validation = batches(flows, &validation, sizes, &mut stream);
        let count = batches_an_epoch(flows);
        let parameters = network.parameters();
        let averaged = parameters.iter().map(|parameter| parameter.value.force_contiguous());
        let averaged = averaged.collect::<Result<_>>()?;
        let adam = Adam::new(options.learning_rate, 0.9, 1e-8);
        Ok(RecordTraining {
            network,
            flows,
            train,
            validation,
            adam: adam.with_weight_decay(options.weight_decay),
            averaged,
            best: None,
            seed,
            state: RecordState::default(),
            order: Vec::new(),
            epochs: epochs_of(count, options.epochs),
            batches: count,
            sizes,
        })
    }

    /// Whether there is nothing left to train.
    pub(crate) fn is_over(&self) -> bool {
        self.state.epoch >= self.epochs || self.state.since >= PATIENCE
    }

    /// Steps done, each a visit of some flows.
    pub(crate) fn steps(&self) -> u64 {
        self.state.steps
    }

    /// Steps that it takes, about.
    pub(crate) fn length(&self) -> u64 {
        self.epochs.saturating_mul(self.batches)
    }

    /// Passes over the flows, at most.
    pub(crate) fn epochs(&self) -> u64 {
        self.epochs
    }

    pub(crate) fn epochs_done(&self) -> f64 {
        self.state.epoch as f64 + self.state.at as f64 / self.batches.max(1) as f64
    }

    /// Flows of a step, about.
    pub(crate) fn flows_a_step(&self) -> usize {
        self.train.len() / self.batches.max(1) as usize
    }

    /// Visits a batch; at the end of an epoch, looks at the flows that are not learned from.
    pub(crate) fn step(&mut self) -> Result<Losses> {
        self.network.ops.on_a_pool(|| self.step_here())
    }

    fn step_here(&mut self) -> Result<Losses> {
        if self.order.is_empty() {
            let mut order = Stream::new(self.seed, Purpose::Shuffle, self.state.epoch);
            self.order = batches(self.flows, &self.train, self.sizes, &mut order);
        }
        let count = self.order.len() as u64;
        // A cosine from the learning rate to a fiftieth of it.
        let done = self.state.epoch as f64 + self.state.at as f64 / count as f64;
        let done = (done / self.epochs as f64).min(1.0);
        let rate = (0.5 * (1.0 + (std::f64::consts::PI * done).cos())).max(0.02);
        let mut stream = Stream::new(self.seed, Purpose::Training, self.state.steps);
        let Some(chosen) = self.order.get(self.state.at as usize) else {
            candle_core::bail!("the checkpoint is of other flows")
        };
        let moved = (&mut self.adam, &self.averaged[..]);
        let visit = self.network.visit(self.flows, chosen, moved, rate, &mut stream);
        let (loss, records) = visit?;
        self.state.loss += loss;
        self.state.records += records;
        self.state.steps += 1;
        self.state.at += 1;
        self.state.adam_steps = self.adam.steps();
        self.state.last.train = self.state.loss / self.state.records.max(1) as f64;
        if self.state.at == count {
            self.end_epoch()?;
        }
        Ok(self.state.last)
    }

    fn end_epoch(&mut self) -> Result<()> {
        let averaged = self.averaged_values()?;
        let state = &mut self.state;
        let validation = match self.validation.is_empty() {
            true => state.last.train,
            false => {
                let now = self.network.values()?;
                self.network.set(&averaged)?;
                let losses = self.network.evaluate(self.flows, &self.validation)?;
                self.network.set(&now)?;
                losses.iter().sum()
            }
        };
        state.last.validation = Some(validation);
        if state.best.is_none_or(|best| validation < best - 1e-4) {
            state.best = Some(validation);
            self.best = Some(averaged);
            state.since = 0;
        } else {
            state.since += 1;
        }
        (state.epoch, state.at) = (state.epoch + 1, 0);
        (state.loss, state.records) = (0.0, 0);
        self.order.clear();
        Ok(())
    }

    /// Adds all that it takes to go on to a file.
    pub(crate) fn checkpoint(&self, arrays: &mut Arrays) -> Result<RecordState> {
        let parameters = self.network.parameters();
        let packed: Vec<Vec<f32>> =
            parameters.iter().map(|parameter| parameter.packed()).collect::<Result<_>>()?;
        arrays.put_all("parameter", &packed);
        arrays.put_all("averaged", &self.averaged_values()?);
        arrays.put_all("best", self.best.as_deref().unwrap_or_default());
        Ok(self.state)
    }

    /// Goes on from there.
    ///
    /// # Errors
    /// It is of another network.
    pub(crate) fn resume(&mut self, arrays: &mut Arrays, state: RecordState) -> Result<()> {
        let parameters = self.network.parameters();
        let (packed, averaged) = (arrays.take_all("parameter"), arrays.take_all("averaged"));
        let best = arrays.take_all("best");
        let fits = |found: &[Vec<f32>], length: fn(&Parameter) -> usize| {
            found.len() == parameters.len()
                && found.iter().zip(&parameters).all(|(values, p)| values.len() == length(p))
        };
        let values = |parameter: &Parameter| parameter.value.elem_count();
        if !fits(&packed, Parameter::packed_len)
            || !fits(&averaged, values)
            || (state.best.is_some() && !fits(&best, values))
        {
            candle_core::bail!("the checkpoint is of another network");
        }
        for (parameter, values) in parameters.iter().zip(&packed) {
            parameter.set_packed(values)?;
        }
        for (tensor, values) in self.averaged.iter().zip(averaged) {
            let values = Tensor::from_vec(values, tensor.shape(), tensor.device())?;
            tensor.slice_set(&values, 0, 0)?;
        }
        self.best = state.best.map(|_| best);
        self.adam.resume(state.adam_steps, 1.0);
        self.state = state;
        Ok(())
    }

    fn averaged_values(&self) -> Result<Vec<Vec<f32>>> {
        self.averaged.iter().map(|tensor| tensor.flatten_all()?.to_vec1()).collect()
    }

    /// The best network there was, calibrated.
    pub(crate) fn finish(&self) -> Result<RecordWeights> {
        self.network.ops.on_a_pool(|| self.finish_here())
    }

    fn finish_here(&self) -> Result<RecordWeights> {
        let now = self.network.values()?;
        match &self.best {
            Some(values) => self.network.set(values)?,
            None => self.network.set(&self.averaged_values()?)?,
        }
        let mut stream = Stream::new(self.seed, Purpose::Shuffle, u64::MAX - 2);
        let mut order: Vec<usize> = (0..self.flows.len()).collect();
        stream.shuffle(&mut order);
        let (mut chosen, mut records) = (Vec::new(), 0);
        for flow in order {
            if records >= CALIBRATED {
                break;
            }
            records += self.flows.range(flow).len();
            chosen.push(flow);
        }
        let groups = batches(self.flows, &chosen, (200, 4000), &mut stream);
        self.network.calibrate(self.flows, &groups)?;
        let weights = self.network.export()?;
        self.network.set(&now)?;
        Ok(weights)
    }
}
