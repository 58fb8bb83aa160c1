//! The training curve of a work folder, `metrics.jsonl`: one JSON document a
//! line, each whole and on disk before training goes on.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fit::Progress;
use crate::work::WorkError;

/// A point is due when so small a share of the time so far has passed since
/// the one before, so curves of any length have the same detail: ...
const SHARE: f64 = 1.0 / 200.0;
/// ... but not sooner than this, in seconds,
const LEAST_S: f64 = 0.1;
/// nor later: somebody may be watching.
const MOST_S: f64 = 10.0;

/// A line: how training went, after an iteration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Point {
    /// Iterations done, over all chunks.
    pub iteration: u64,
    /// Iterations that the configured length is.
    pub iterations: u64,
    /// The chunk that is trained, counted from 0.
    pub chunk: usize,
    /// How many there are.
    pub chunks: usize,
    /// Passes over the chunk's samples.
    pub epochs: f64,
    /// Time since training began.
    pub elapsed_s: f64,
    /// Samples (flows, or segments of them) by time since the line before.
    pub samples_per_s: f64,
    /// The critic's loss, see [`crate::train::Losses`].
    pub critic: f32,
    /// The attribute critic's loss; 0 without one.
    pub attribute_critic: f32,
    /// The generator's loss.
    pub generator: f32,
    /// The critic's gradient penalty.
    pub gradient_penalty: f32,
    /// The attribute critic's gradient penalty.
    pub attribute_gradient_penalty: f32,
}

/// Writes a curve while training goes on.
#[derive(Debug)]
pub(crate) struct Curve {
    file: File,
    path: PathBuf,
    batch_size: usize,
    /// Iteration and time of the last line.
    written: (u64, Duration),
    /// What has no line yet.
    pending: Option<Progress>,
}

impl Curve {
    /// Begins an empty file.
    pub(crate) fn create(path: PathBuf, batch_size: usize) -> Result<Curve, WorkError> {
        match File::create(&path) {
            Ok(file) => {
                Ok(Curve { file, path, batch_size, written: Default::default(), pending: None })
            }
            Err(source) => Err(WorkError::Write { path, source }),
        }
    }

    /// Takes note of an iteration; of the first, and from then on now and then,
    /// a line is written.
    pub(crate) fn add(&mut self, progress: &Progress) -> Result<(), WorkError> {
        let (iteration, time) = self.written;
        let wait = (progress.elapsed.as_secs_f64() * SHARE).clamp(LEAST_S, MOST_S);
        if iteration == 0 || (progress.elapsed - time).as_secs_f64() >= wait {
            return self.write(progress);
        }
        self.pending = Some(*progress);
        Ok(())
    }

    /// Writes the last iteration, if it has no line yet.
    pub(crate) fn finish(mut self) -> Result<(), WorkError> {
        self.pending.take().map_or(Ok(()), |progress| self.write(&progress))
    }

    fn write(&mut self, progress: &Progress) -> Result<(), WorkError> {
        let (iteration, time) = self.written;
        let seconds = (progress.elapsed - time).as_secs_f64().max(1e-9);
        let samples = (progress.iteration - iteration) as f64 * self.batch_size as f64;
        let losses = progress.losses;
        let point = Point {
            iteration: progress.iteration,
            iterations: progress.iterations,
            chunk: progress.chunk,
            chunks: progress.chunks,
            epochs: progress.epochs,
            elapsed_s: progress.elapsed.as_secs_f64(),
            samples_per_s: samples / seconds,
            critic: losses.critic,
            attribute_critic: losses.attribute_critic,
            generator: losses.generator,
            gradient_penalty: losses.gradient_penalty,
            attribute_gradient_penalty: losses.attribute_gradient_penalty,
        };
        self.written = (progress.iteration, progress.elapsed);
        self.pending = None;
        let fail = |source| WorkError::Write { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(&point).map_err(|error| fail(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(fail)
    }
}

/// Reads a curve. A last line that is not whole is left out: it is being
/// written, or its writer was killed.
///
/// # Errors
/// The file cannot be read, or a line is not a [`Point`].
pub fn read(path: &Path) -> Result<Vec<Point>, WorkError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| WorkError::Read { path: path.to_owned(), source })?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let point = |(line, text): (usize, &str)| {
        serde_json::from_str(text).map_err(|error| WorkError::Damaged {
            path: path.to_owned(),
            reason: format!("line {}: {error}", line + 1),
        })
    };
    whole.lines().enumerate().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Losses;

    fn progress(iteration: u64, milliseconds: u64) -> Progress {
        Progress {
            chunk: 0,
            chunks: 1,
            iteration,
            iterations: 2_000_000,
            epochs: iteration as f64 / 10.0,
            losses: Losses { critic: iteration as f32, ..Losses::default() },
            elapsed: Duration::from_millis(milliseconds),
        }
    }

    #[test]
    fn a_curve_has_its_first_and_last_iteration_and_detail_at_any_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        // Twenty hours at 40 ms an iteration.
        let mut curve = Curve::create(path.clone(), 100).unwrap();
        for iteration in 1..=1_800_000 {
            curve.add(&progress(iteration, 40 * iteration)).unwrap();
        }
        curve.finish().unwrap();
        let points = read(&path).unwrap();
        assert_eq!((points[0].iteration, points[0].critic), (1, 1.0));
        assert_eq!(points.last().unwrap().iteration, 1_800_000);
        assert!((2_000..10_000).contains(&points.len()), "{} lines", points.len());
        let of_first_minute = points.iter().filter(|point| point.elapsed_s < 60.0).count();
        assert!((200..600).contains(&of_first_minute), "{of_first_minute} lines");
        assert!((points[500].samples_per_s - 2500.0).abs() < 1.0);
    }

    #[test]
    fn what_was_not_written_to_its_end_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut curve = Curve::create(path.clone(), 100).unwrap();
        assert_eq!(read(&path).unwrap(), []);
        curve.add(&progress(1, 1)).unwrap();
        curve.add(&progress(2, 2)).unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        text += "{ \"iteration\": 3";
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        std::fs::write(&path, text + "\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("is damaged: line 2: "));
    }
}
