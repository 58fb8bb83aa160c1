//! Who does the units of a plan: here, threads of this process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Device;

use super::{Ended, Means, Plan, Standing, Step, Task, Trained, Unit, UnitError, run_unit};
use crate::curve::{self, Likelihood};
use crate::generate::Generating;
use crate::train::Losses;
use crate::work::WorkFolder;

/// How a run goes, after every iteration of any of its units.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// The model that the iteration was of, counted from 0.
    pub cell: usize,
    /// How many there are.
    pub cells: usize,
    /// The chunk that the iteration was of, counted from 0.
    pub chunk: usize,
    /// How many there are.
    pub chunks: usize,
    /// Iterations done, over all units; those of an earlier sitting too.
    pub iteration: u64,
    /// Iterations that the configured length is, over all units.
    pub iterations: u64,
    /// Iterations done in this sitting.
    pub done_now: u64,
    /// Passes over the chunk's samples.
    pub epochs: f64,
    /// Samples (flows, or segments of them) an iteration.
    pub batch_size: usize,
    /// The losses of this iteration, see [`Trained::losses`].
    pub losses: Losses,
    /// See [`Trained::likelihood`].
    pub likelihood: Option<Likelihood>,
    /// See [`Trained::of_variables`].
    pub of_variables: Option<(usize, usize)>,
    /// Time since this sitting began to train.
    pub elapsed: Duration,
}

/// What a unit of a run has just done.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Happened {
    /// An iteration of training.
    Trained(Progress),
    /// Records were generated, or merged: how many, all parts together.
    Generated(Generating),
}

/// Does the units of a plan. [`Local`] does them in threads of this process; one for
/// a cluster would start `ns-train unit` on other machines.
pub trait Executor {
    /// Does what is not done yet. `watch` is told of every step; when it returns
    /// false, all units stop where they are, so that they can go on from there.
    ///
    /// # Errors
    /// A unit cannot be done, for another reason than that its training failed.
    fn run(
        &mut self,
        work: &WorkFolder,
        plan: &Plan,
        watch: &mut (dyn FnMut(&Happened) -> bool + Send),
    ) -> Result<Ended, UnitError>;
}

/// As many units at a time as there are cores, and cores shared out where there are more.
#[derive(Debug)]
pub struct Local {
    /// Where to train.
    pub device: Device,
    /// Threads on the CPU, for all units together.
    pub threads: usize,
    /// Time for all of it, if it is limited.
    pub time: Option<Duration>,
    /// The ONNX Runtime library, where it is not in one of the usual places.
    pub onnxruntime: Option<PathBuf>,
}

/// What the threads of a run share.
struct Shared<'a> {
    work: &'a WorkFolder,
    plan: &'a Plan,
    /// What has begun, is under way, or went wrong.
    board: Mutex<Board>,
    changed: Condvar,
    stop: AtomicBool,
    watch: Mutex<&'a mut (dyn FnMut(&Happened) -> bool + Send)>,
    begin: Instant,
}

struct Board {
    begun: Vec<bool>,
    running: usize,
    at_once: usize,
    /// Threads that no unit has.
    free: usize,
    /// Iterations done in each unit, and in this sitting.
    iterations: Vec<u64>,
    done_now: u64,
    /// What each part that is generated has come to.
    generated: Vec<Option<Generating>>,
    error: Option<UnitError>,
}

impl Executor for Local {
    fn run(
        &mut self,
        work: &WorkFolder,
        plan: &Plan,
        watch: &mut (dyn FnMut(&Happened) -> bool + Send),
    ) -> Result<Ended, UnitError> {
        // What failed once may do better now: a disk has room again, a file was put back.
        for unit in &plan.units {
            let _ = std::fs::remove_file(work.path().join(unit.failure()));
        }
        let standing: Vec<Standing> =
            plan.units.iter().map(|unit| plan.standing(work, unit)).collect();
        let done = |index: usize| standing[index] == Standing::Done;
        let most = widest(plan);
        let at_once = self.threads.max(1).min(most);
        let ends = ends(plan, at_once);
        // What earlier sittings had of the time.
        let time = self.time.map(|time| (time, spent(work, plan, at_once)));
        let board = Board {
            begun: (0..plan.units.len()).map(done).collect(),
            running: 0,
            at_once,
            free: self.threads.max(1),
            iterations: plan.units.iter().map(|unit| iterations_so_far(work, plan, unit)).collect(),
            done_now: 0,
            generated: vec![None; plan.units.len()],
            error: None,
        };
        let shared = Shared {
            work,
            plan,
            board: Mutex::new(board),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            watch: Mutex::new(watch),
            begin: Instant::now(),
        };
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                let (shared, ends) = (&shared, &ends);
                let local = &*self;
                scope.spawn(move || work_off(shared, local, time, ends));
            }
        });
        let board = shared.board.into_inner().unwrap_or_else(PoisonError::into_inner);
        match board.error {
            Some(error) => Err(error),
            None if shared.stop.load(Ordering::Relaxed) => Ok(Ended::Stopped),
            None => Ok(Ended::Done),
        }
    }
}

/// Does units until none can be done any more.
fn work_off(shared: &Shared<'_>, local: &Local, time: Option<(Duration, Duration)>, ends: &[f64]) {
    while let Some((index, threads)) = take(shared) {
        let unit = &shared.plan.units[index];
        // A unit has until its part of the time is over.
        let time = time.map(|(time, spent)| {
            let left = time.mul_f64(ends[index]).saturating_sub(spent + shared.begin.elapsed());
            left + trained_for(shared.work, shared.plan, unit)
        });
        let mut watch = |step: &Step| step_done(shared, index, step);
        let (device, onnxruntime) = (&local.device, local.onnxruntime.as_deref());
        let means = Means { device, threads, time, onnxruntime };
        let run = || run_unit(shared.work, shared.plan, unit, means, &mut watch);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let mut board = lock(&shared.board);
        board.running -= 1;
        board.free += threads;
        let ended = ended.unwrap_or_else(|panic| {
            // The others must not wait for it.
            shared.stop.store(true, Ordering::Relaxed);
            shared.changed.notify_all();
            std::panic::resume_unwind(panic)
        });
        match ended {
            Ok(Ended::Done) => {}
            Ok(Ended::Stopped) => shared.stop.store(true, Ordering::Relaxed),
            // Other models may do better; the choice says what became of this one.
            Err(error) if error.is_training() && unit.task != Task::Choose => {}
            Err(error) => {
                shared.stop.store(true, Ordering::Relaxed);
                board.error.get_or_insert(error);
            }
        }
        drop(board);
        shared.changed.notify_all();
    }
}

/// The next unit that can be done, once there is one, and its threads; none when
/// nothing is left.
fn take(shared: &Shared<'_>) -> Option<(usize, usize)> {
    let mut board = lock(&shared.board);
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            return None;
        }
        let ready = (0..shared.plan.units.len()).filter(|&index| {
            let standing = || shared.plan.standing(shared.work, &shared.plan.units[index]);
            !board.begun[index] && standing() == Standing::Ready
        });
        let ready: Vec<usize> = ready.take(board.at_once).collect();
        if let Some(&index) = ready.first()
            && board.free > 0
        {
            // The result does not depend on how many threads a unit has, so it has all that
            // no other can use now.
            let others = ready.len().min(board.at_once - board.running);
            let threads = (board.free / others.max(1)).max(1);
            board.begun[index] = true;
            board.running += 1;
            board.free -= threads;
            return Some((index, threads));
        }
        if board.running == 0 {
            return None;
        }
        board = shared.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Tells of a step; whether to go on.
fn step_done(shared: &Shared<'_>, index: usize, step: &Step) -> bool {
    let happened = match (step, shared.plan.units[index].task) {
        (Step::Trained(trained), Task::Train { cell, chunk }) => {
            Happened::Trained(trained_in_all(shared, index, (cell, chunk), trained))
        }
        (Step::Generated(part), Task::Generate { .. }) => {
            Happened::Generated(generated_in_all(shared, index, *part))
        }
        (Step::Generated(merged), _) => Happened::Generated(*merged),
        (Step::Trained(_), _) => return true,
    };
    if shared.stop.load(Ordering::Relaxed) {
        return false;
    }
    let go_on = (lock(&shared.watch))(&happened);
    if !go_on {
        shared.stop.store(true, Ordering::Relaxed);
    }
    go_on
}

fn trained_in_all(
    shared: &Shared<'_>,
    index: usize,
    (cell, chunk): (usize, usize),
    step: &Trained,
) -> Progress {
    let (iteration, done_now) = {
        let mut board = lock(&shared.board);
        board.iterations[index] = step.iteration;
        // Before the iterations, an autoregressive model tells of its variables.
        board.done_now += u64::from(step.of_variables.is_none());
        let all = board.iterations.iter().fold(0_u64, |sum, &n| sum.saturating_add(n));
        (all, board.done_now)
    };
    Progress {
        cell,
        cells: shared.plan.cells.len(),
        chunk,
        chunks: shared.plan.chunks,
        iteration,
        iterations: iterations(shared.plan),
        done_now,
        epochs: step.epochs,
        batch_size: step.batch_size,
        losses: step.losses,
        likelihood: step.likelihood,
        of_variables: step.of_variables,
        elapsed: shared.begin.elapsed(),
    }
}

fn generated_in_all(shared: &Shared<'_>, index: usize, part: Generating) -> Generating {
    let mut board = lock(&shared.board);
    board.generated[index] = Some(part);
    let mut all = Generating { records: 0, flows: 0, share: None };
    let mut shares = 0.0;
    for (unit, part) in shared.plan.units.iter().zip(&board.generated) {
        if let Some(part) = part {
            all.records += part.records;
            all.flows += part.flows;
            shares += part.share.unwrap_or(0.0);
        } else if let Task::Generate { .. } = unit.task
            && shared.plan.standing(shared.work, unit) == Standing::Done
        {
            shares += 1.0;
        }
    }
    let parts = shared.plan.trace.as_ref().map_or(1, |trace| trace.parts.max(1));
    all.share = part.share.map(|_| shares / parts as f64);
    all
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Iterations of a plan.
pub(crate) fn iterations(plan: &Plan) -> u64 {
    plan.units.iter().fold(0, |sum, unit| sum.saturating_add(unit.iterations))
}

/// Iterations of a unit that its curve tells of.
fn iterations_so_far(work: &WorkFolder, plan: &Plan, unit: &Unit) -> u64 {
    let last = super::status::last_point(work, plan, unit);
    last.map_or(0, |point: curve::Point| point.iteration)
}

/// Time that a unit was trained for.
fn trained_for(work: &WorkFolder, plan: &Plan, unit: &Unit) -> Duration {
    let last = super::status::last_point(work, plan, unit);
    let seconds = last.map_or(0.0, |point: curve::Point| point.elapsed_s);
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// How long a plan was worked on, as far as its curves tell: as long as one model's chunks
/// after its first took, and as all of them together on so many threads.
fn spent(work: &WorkFolder, plan: &Plan, at_once: usize) -> Duration {
    let mut firsts = vec![Duration::ZERO; plan.cells.len()];
    let mut others = firsts.clone();
    let mut sum = Duration::ZERO;
    for unit in &plan.units {
        let Task::Train { cell, chunk } = unit.task else { continue };
        let time = trained_for(work, plan, unit);
        sum += time;
        match chunk {
            0 => firsts[cell] = time,
            _ => others[cell] = others[cell].max(time),
        }
    }
    let chains = firsts.iter().zip(&others).map(|(first, other)| *first + *other);
    chains.max().unwrap_or_default().max(sum / at_once as u32)
}

/// How many units can be under way at once.
fn widest(plan: &Plan) -> usize {
    let mut levels = [0_usize; 3];
    for unit in &plan.units {
        match unit.task {
            Task::Train { .. } => levels[usize::from(unit.inputs.len() > 2)] += 1,
            Task::Generate { .. } => levels[2] += 1,
            _ => {}
        }
    }
    // While the first chunk of one model trains, later ones of another may.
    levels.into_iter().max().unwrap_or(1).max(1)
}

/// When each unit ends, as a share of the whole, if iterations take equally long and
/// units are done `at_once`, in order as soon as they can be.
fn ends(plan: &Plan, at_once: usize) -> Vec<f64> {
    let makers: HashMap<&Path, usize> = plan
        .units
        .iter()
        .enumerate()
        .flat_map(|(index, unit)| unit.outputs.iter().map(move |path| (path.as_path(), index)))
        .collect();
    let needs: Vec<Vec<usize>> = plan
        .units
        .iter()
        .map(|unit| unit.inputs.iter().filter_map(|p| makers.get(p.as_path()).copied()).collect())
        .collect();
    let mut ends = vec![f64::NAN; plan.units.len()];
    let mut free = vec![0.0_f64; at_once];
    loop {
        let worker = (0..free.len()).min_by(|&a, &b| free[a].total_cmp(&free[b]));
        let Some(worker) = worker else { break };
        // When everything that a unit needs is there.
        let ready_at = |index: usize| {
            needs[index].iter().map(|&maker| ends[maker]).fold(0.0, |latest: f64, end| {
                if end.is_nan() { f64::INFINITY } else { latest.max(end) }
            })
        };
        let next = (0..ends.len())
            .filter(|&index| ends[index].is_nan())
            .map(|index| (ready_at(index).max(free[worker]), index))
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        match next {
            Some((start, index)) if start.is_finite() => {
                ends[index] = start + plan.units[index].iterations as f64;
                free[worker] = ends[index];
            }
            _ => break,
        }
    }
    let last = ends.iter().copied().fold(0.0, f64::max).max(1.0);
    ends.into_iter().map(|end| if end.is_nan() { 1.0 } else { end / last }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, iterations: u64, inputs: &[&str]) -> Unit {
        Unit {
            name: name.to_owned(),
            task: Task::Train { cell: 0, chunk: 0 },
            inputs: inputs.iter().map(Into::into).collect(),
            outputs: vec![name.into()],
            iterations,
        }
    }

    #[test]
    fn time_is_shared_out_by_when_units_end() {
        let units = vec![
            unit("a", 40, &["samples"]),
            unit("b", 10, &["a"]),
            unit("c", 10, &["a"]),
            unit("d", 10, &["a"]),
        ];
        let plan = Plan { version: 1, cells: Vec::new(), chunks: 4, trace: None, units };
        assert_eq!(ends(&plan, 1), [40.0, 50.0, 60.0, 70.0].map(|end| end / 70.0));
        assert_eq!(ends(&plan, 2), [40.0, 50.0, 50.0, 60.0].map(|end| end / 60.0));
        assert_eq!(ends(&plan, 9), [40.0, 50.0, 50.0, 50.0].map(|end| end / 50.0));
    }
}
