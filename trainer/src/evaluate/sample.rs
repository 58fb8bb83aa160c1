//! Some of a table's flows: what a distance is taken of.

use ns_model_format::random::{Purpose, Stream};

use super::table::{Frame, Table};

/// Records of chosen units, in order of time and by flow.
#[derive(Debug)]
pub struct Sample<'t> {
    /// What its columns are.
    pub frame: &'t Frame,
    /// Where its cells are.
    pub table: &'t Table,
    /// The records, in order of time.
    pub rows: Vec<u32>,
    by_flow: Vec<u32>,
    /// Where each flow begins in `by_flow`, and the end.
    starts: Vec<u32>,
}

impl<'t> Sample<'t> {
    /// All of a table.
    #[must_use]
    pub fn all(frame: &'t Frame, table: &'t Table) -> Sample<'t> {
        Sample::new(frame, table, &vec![true; table.units])
    }

    /// The units that are marked.
    #[must_use]
    pub fn new(frame: &'t Frame, table: &'t Table, chosen: &[bool]) -> Sample<'t> {
        let takes = |flow: u32| chosen[table.unit_of[flow as usize] as usize];
        let mut rows = Vec::new();
        let mut counts = vec![0_u32; table.flows()];
        for (row, &flow) in table.flow_of.iter().enumerate() {
            if takes(flow) {
                rows.push(row as u32);
                counts[flow as usize] += 1;
            }
        }
        // Where each flow's next record goes; flows that were not chosen have no place.
        let (mut starts, mut next, mut sum) = (Vec::new(), counts, 0);
        for place in &mut next {
            if *place > 0 {
                starts.push(sum);
                sum += *place;
                *place = sum - *place;
            }
        }
        starts.push(sum);
        let mut by_flow = vec![0; rows.len()];
        for &row in &rows {
            let place = &mut next[table.flow_of[row as usize] as usize];
            by_flow[*place as usize] = row;
            *place += 1;
        }
        Sample { frame, table, rows, by_flow, starts }
    }

    /// Each flow's records in order of time.
    pub fn flows(&self) -> impl Iterator<Item = &[u32]> {
        self.starts.windows(2).map(|pair| &self.by_flow[pair[0] as usize..pair[1] as usize])
    }

    /// How many flows.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.starts.len() - 1
    }

    /// A record's time in nanoseconds since the epoch.
    #[must_use]
    pub fn time_ns(&self, row: u32) -> i64 {
        self.table.times_ns[row as usize]
    }

    /// Seconds from one record to another.
    #[must_use]
    pub fn gap(&self, from: u32, to: u32) -> f64 {
        (self.time_ns(to) - self.time_ns(from)) as f64 / 1e9
    }

    /// A record's category in a column.
    #[must_use]
    pub fn id(&self, column: usize, row: u32) -> u32 {
        self.table.ids(column).get(row as usize).copied().unwrap_or(0)
    }

    /// A record's number in a column.
    #[must_use]
    pub fn number(&self, column: usize, row: u32) -> f64 {
        self.table.numbers(column).get(row as usize).copied().unwrap_or(f64::NAN)
    }

    /// A record's whole number in a column of categories, such as a port; -1
    /// where there is none.
    #[must_use]
    pub fn whole(&self, column: usize, row: u32) -> i64 {
        self.frame.columns[column].number(self.id(column, row)).unwrap_or(-1)
    }

    /// Counts of a column's categories, by their index.
    #[must_use]
    pub fn counts(&self, column: usize) -> Vec<u64> {
        let mut counts = vec![0; self.frame.columns[column].values.len()];
        let ids = self.table.ids(column);
        for &row in &self.rows {
            counts[ids[row as usize] as usize] += 1;
        }
        counts
    }
}

/// Random samples of a table of as many units each, which share none.
///
/// # Panics
/// If the table has fewer than `parts * units`.
#[must_use]
pub fn draw(table: &Table, parts: usize, units: usize, seed: u64, stream: u64) -> Vec<Vec<bool>> {
    let mut order: Vec<u32> = (0..table.units as u32).collect();
    Stream::new(seed, Purpose::Evaluation, stream).shuffle(&mut order);
    let chosen = |part: usize| {
        let mut chosen = vec![false; table.units];
        for &unit in &order[part * units..(part + 1) * units] {
            chosen[unit as usize] = true;
        }
        chosen
    };
    (0..parts).map(chosen).collect()
}
