//! How a run stands, read from its files: while it runs, from another terminal, or after.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::SystemTime;

use serde::Serialize;

use super::plan::CHOSEN;
use super::{Plan, Standing, Task, Unit, UnitError, train};
use crate::curve::Point;
use crate::work::WorkFolder;

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// How the run as a whole stands.
    pub state: State,
    /// Iterations done.
    pub iteration: u64,
    /// Iterations that the configured length is.
    pub iterations: u64,
    /// Seconds left, if all units under way go on as they do.
    pub left_s: Option<f64>,
    /// Its units.
    pub units: Vec<UnitStatus>,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All of it is there.
    Done,
    /// A process is at it.
    Running,
    /// It was begun, and nobody is at it.
    Stopped,
    /// It can begin.
    Ready,
    /// It waits for others.
    Waiting,
    /// It failed.
    Failed,
}

/// How a unit stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct UnitStatus {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// Iterations that it is to have; 0 if it does not train.
    pub iterations: u64,
    /// The last line of its training curve.
    pub last: Option<Point>,
    /// Iterations by time, lately.
    pub iterations_per_s: Option<f64>,
    /// Seconds left, if it goes on as it does.
    pub left_s: Option<f64>,
    /// Seconds since the last line.
    pub age_s: Option<f64>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// Reads how a run stands.
///
/// # Errors
/// The folder has no plan, or a damaged one.
pub fn read(work: &WorkFolder) -> Result<Status, UnitError> {
    let plan = Plan::read(work)?;
    let over = work.path().join(CHOSEN).exists();
    let mut units: Vec<UnitStatus> =
        plan.units.iter().map(|unit| of_unit(work, &plan, unit, over)).collect();
    let any = |state: State| units.iter().any(|unit| unit.state == state);
    let state = match () {
        () if over => State::Done,
        () if any(State::Running) => State::Running,
        () if any(State::Failed) && !any(State::Ready) && !any(State::Stopped) => State::Failed,
        () if any(State::Stopped) || any(State::Done) => State::Stopped,
        () => State::Ready,
    };
    let done = |unit: &UnitStatus| unit.last.map_or(0, |last| last.iteration.min(unit.iterations));
    let (iteration, iterations) = (
        units.iter().map(done).fold(0_u64, u64::saturating_add),
        units.iter().fold(0_u64, |sum, unit| sum.saturating_add(unit.iterations)),
    );
    let rate: f64 = units
        .iter()
        .filter(|unit| unit.state == State::Running)
        .filter_map(|unit| unit.iterations_per_s)
        .sum();
    let left_s = (state == State::Running && rate > 0.0)
        .then(|| iterations.saturating_sub(iteration) as f64 / rate);
    if Plan::generation_exists(work) {
        let plan = Plan::read_generation(work)?;
        units.extend(plan.units.iter().map(|unit| of_unit(work, &plan, unit, false)));
    }
    Ok(Status { state, iteration, iterations, left_s, units })
}

/// The first unit of a plan that a process is at, if there is one.
pub(crate) fn running<'a>(work: &WorkFolder, plan: &'a Plan) -> Option<&'a Unit> {
    plan.units.iter().find(|unit| is_locked(work, unit))
}

fn of_unit(work: &WorkFolder, plan: &Plan, unit: &Unit, over: bool) -> UnitStatus {
    let points = last_points(work, plan, unit);
    let last = points.last().copied();
    let begun = last.is_some();
    let standing = plan.standing(work, unit);
    let state = match standing {
        Standing::Failed => State::Failed,
        Standing::Done => State::Done,
        Standing::Lost if over => State::Failed,
        _ if over => State::Done,
        _ if is_locked(work, unit) => State::Running,
        Standing::Ready if begun => State::Stopped,
        Standing::Ready => State::Ready,
        Standing::Waiting | Standing::Lost => State::Waiting,
    };
    let rate = points.first().zip(last).and_then(|(first, last)| {
        let (iterations, seconds) =
            (last.iteration.saturating_sub(first.iteration), last.elapsed_s - first.elapsed_s);
        (iterations > 0 && seconds > 0.0).then(|| iterations as f64 / seconds)
    });
    let running = state == State::Running;
    let left_s = rate
        .zip(last)
        .filter(|_| running)
        .map(|(rate, last)| last.iterations.saturating_sub(last.iteration) as f64 / rate);
    UnitStatus {
        name: unit.name.clone(),
        state,
        iterations: unit.iterations,
        last,
        iterations_per_s: rate,
        left_s,
        age_s: curve_file(work, plan, unit).and_then(|path| {
            let changed = path.metadata().and_then(|file| file.modified()).ok()?;
            Some(SystemTime::now().duration_since(changed).ok()?.as_secs_f64())
        }),
        reason: (state == State::Failed)
            .then(|| std::fs::read_to_string(work.path().join(unit.failure())).ok())
            .flatten()
            .map(|text| text.trim().to_owned()),
    }
}

/// Whether a process is at it.
fn is_locked(work: &WorkFolder, unit: &Unit) -> bool {
    let file = File::open(work.path().join(unit.lock()));
    file.is_ok_and(|file| file.try_lock_shared().is_err())
}

fn curve_file(work: &WorkFolder, plan: &Plan, unit: &Unit) -> Option<std::path::PathBuf> {
    let Task::Train { cell, chunk } = unit.task else { return None };
    Some(train::curve_file(work, &plan.cells[cell].name, chunk))
}

/// The last line of a unit's training curve.
pub(super) fn last_point(work: &WorkFolder, plan: &Plan, unit: &Unit) -> Option<Point> {
    last_points(work, plan, unit).pop()
}

/// The last lines, without reading all: curves of long runs are long.
fn last_points(work: &WorkFolder, plan: &Plan, unit: &Unit) -> Vec<Point> {
    const END: u64 = 1 << 14;
    let read = || -> Option<Vec<Point>> {
        let mut file = File::open(curve_file(work, plan, unit)?).ok()?;
        let from = file.metadata().ok()?.len().saturating_sub(END);
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut bytes = Vec::new();
        file.take(END).read_to_end(&mut bytes).ok()?;
        // What is cut at either end is no line.
        Some(
            String::from_utf8_lossy(&bytes)
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        )
    };
    read().unwrap_or_default()
}
