//! A chart with its data and its description.

use super::svg::{self, Axis, BarRow, Line, Side};

/// A chart, its data as a table, and what it shows in words.
#[derive(Clone, Debug)]
pub struct Figure {
    /// For programs: the name of its files.
    pub name: String,
    /// For people.
    pub title: String,
    /// What it shows, with its figures, for those who cannot see it.
    pub words: String,
    /// The part of the report that it belongs to.
    pub(super) section: Section,
    /// SVG without a style of its own.
    pub(super) chart: String,
    /// The header of its data.
    pub(super) columns: Vec<String>,
    /// Its data.
    pub(super) rows: Vec<Vec<String>>,
}

impl Figure {
    /// Lines over two axes; its data has a row a point, `values` being what they are called.
    pub(super) fn of_lines(
        head: Head<'_>,
        axes: [Axis; 2],
        lines: &[Line],
        values: [&str; 3],
    ) -> Figure {
        let [x, y] = &axes;
        let of = |line: &Line| -> Vec<Vec<String>> {
            let row = |(x, y): &(f64, f64)| vec![line.name.clone(), cell(*x), cell(*y)];
            line.points.iter().map(row).collect()
        };
        let chart = svg::lines(&head.title, &head.words, x, y, lines);
        head.figure(chart, &values, lines.iter().flat_map(of).collect())
    }

    /// Bars of several sides; its data has a row a group of bars.
    pub(super) fn of_bars(head: Head<'_>, axis: &str, sides: &[Side], rows: &[BarRow]) -> Figure {
        let chart = svg::bars(&head.title, &head.words, axis, sides, rows);
        let has_spread = rows.iter().any(|row| row.spread > 0.0);
        let names = std::iter::once(head.name).chain(sides.iter().map(|side| side.name()));
        let columns: Vec<&str> = names.chain(has_spread.then_some("halves_differ_by")).collect();
        let data = rows.iter().map(|row| {
            let values = row.values.iter().copied().chain(has_spread.then_some(row.spread));
            std::iter::once(row.label.clone()).chain(values.map(cell)).collect()
        });
        head.figure(chart, &columns, data.collect())
    }

    /// The chart as an SVG file of its own.
    #[must_use]
    pub fn svg(&self) -> String {
        svg::standalone(&self.chart)
    }

    /// Its data as CSV (RFC 4180).
    #[must_use]
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        // Writing to memory cannot fail, and all rows are as long as the header.
        let _ = writer.write_record(&self.columns);
        for row in &self.rows {
            let _ = writer.write_record(row);
        }
        writer
            .into_inner()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

/// What a figure is called, where it belongs, and what it says.
#[derive(Clone, Debug)]
pub(super) struct Head<'a> {
    pub(super) name: &'a str,
    pub(super) title: String,
    pub(super) section: Section,
    pub(super) words: String,
}

impl Head<'_> {
    /// The figure with this chart and this data.
    pub(super) fn figure(self, chart: String, columns: &[&str], rows: Vec<Vec<String>>) -> Figure {
        Figure {
            name: self.name.to_owned(),
            title: self.title,
            section: self.section,
            words: self.words,
            chart,
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rows,
        }
    }
}

/// The parts of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Ratios,
    Fields,
    Joint,
    Sequence,
    Protocol,
    Downstream,
    Privacy,
    Training,
}

impl Section {
    pub(super) const ALL: [Section; 8] = [
        Section::Ratios,
        Section::Fields,
        Section::Joint,
        Section::Sequence,
        Section::Protocol,
        Section::Downstream,
        Section::Privacy,
        Section::Training,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Section::Ratios => "All ratios",
            Section::Fields => "Fields",
            Section::Joint => "Fields together",
            Section::Sequence => "Records one after another",
            Section::Protocol => "Protocols",
            Section::Downstream => "Work done with it",
            Section::Privacy => "Privacy",
            Section::Training => "Training",
        }
    }

    pub(super) fn id(self) -> &'static str {
        match self {
            Section::Ratios => "ratios",
            Section::Fields => "fields",
            Section::Joint => "joint",
            Section::Sequence => "sequence",
            Section::Protocol => "protocol",
            Section::Downstream => "downstream",
            Section::Privacy => "privacy",
            Section::Training => "training",
        }
    }
}

/// A number as a cell of data.
pub(super) fn cell(number: f64) -> String {
    if number.is_finite() { number.to_string() } else { String::new() }
}
