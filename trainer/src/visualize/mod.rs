//! `ns-train visualize`: an evaluation as one HTML file, with pictures.
//!
//! The page needs no network and no script. Its charts are SVG with a description
//! each; every chart is also written as a file of its own, with its data as CSV.

mod charts;
pub mod cli;
mod page;
mod svg;

pub use charts::{Figure, TrainingPoint};

use crate::evaluate::{Comparison, Evaluation};

const CHART_STYLE: &str = include_str!("chart.css");
const PAGE_STYLE: &str = include_str!("page.css");

/// A report.
#[derive(Clone, Debug)]
pub struct Report {
    /// The page.
    pub html: String,
    /// Its charts.
    pub figures: Vec<Figure>,
}

/// Makes a report of an evaluated comparison; `training` may be empty.
#[must_use]
pub fn report(
    comparison: &Comparison,
    evaluation: &Evaluation,
    training: &[TrainingPoint],
) -> Report {
    let figures = charts::figures(comparison, evaluation, training);
    Report { html: page::page(evaluation, &figures), figures }
}
