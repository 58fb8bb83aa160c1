//! `ns-train visualize`: an evaluation as one HTML file, with pictures.
//!
//! The page needs no network and no script. Its charts are SVG with a description
//! each; every chart is also written as a file of its own, with its data as CSV.

mod charts;
pub mod cli;
mod figure;
mod page;
mod svg;

pub use figure::Figure;

use std::io;
use std::path::{Path, PathBuf};

use crate::curve::Point;
use crate::evaluate::{Comparison, Evaluation};
use crate::files::write_whole;

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
pub fn report(comparison: &Comparison, evaluation: &Evaluation, training: &[Point]) -> Report {
    let figures = charts::figures(comparison, evaluation, training);
    Report { html: page::page(evaluation, &figures), figures }
}

impl Report {
    /// Writes the page, and its charts with their data into a folder, the page last:
    /// where it is, they are. The path that could not be written comes with the reason.
    pub(crate) fn write(&self, page: &Path, plots: &Path) -> Result<(), (PathBuf, io::Error)> {
        std::fs::create_dir_all(plots).map_err(|error| (plots.to_owned(), error))?;
        let whole = |path: PathBuf, text: &str| {
            write_whole(&path, text.as_bytes()).map_err(|error| (path, error))
        };
        for figure in &self.figures {
            whole(plots.join(format!("{}.svg", figure.name)), &figure.svg())?;
            whole(plots.join(format!("{}.csv", figure.name)), &figure.csv())?;
        }
        whole(page.to_owned(), &self.html)
    }
}
