//! The baseline: an order-2 Markov chain over whole records.
//!
//! Flows get the names of real ones, with source and destination drawn again
//! within flows of the same service, and ephemeral ports drawn anew; each record
//! is drawn given the two before it, within the flow's service where that was
//! seen often enough, else over all. A generative model that is further from the
//! truth than this is not good enough.

use std::collections::HashMap;

use ns_model_format::random::{Purpose, Stream};

use super::table::{Cell, Cells, Frame, Role, Table};

/// Ports above 1023 that fewer flows use are ephemeral.
const COMMON: u32 = 5;
/// Bins of gaps, and of real numbers, by quantiles.
const BINS: usize = 40;
/// A context with fewer continuations is left for a wider one half of the time.
const FEW: usize = 2;
/// A flow is ended after so many records.
const MOST_RECORDS: usize = 5000;
/// A context's place that stands for any record, and for the beginning.
const ANY: u32 = u32::MAX;
const BEGIN: u32 = u32::MAX - 1;
/// A token that ends a flow.
const END: u32 = u32::MAX - 2;

/// A trace as long as `train`, of `count` flows, drawn from a chain fitted on it.
///
/// Ports that did not occur before are added to the frame.
#[must_use]
pub(super) fn generate(frame: &mut Frame, train: &Table, count: usize, seed: u64) -> Table {
    let mut random = Stream::new(seed, Purpose::Evaluation, u64::MAX);
    let flows = flows_of(train);
    if flows.is_empty() {
        return Table { cells: train.cells.clone(), ..Table::default() };
    }
    let names = Names::of(frame, train, &flows);
    let chain = Chain::fit(frame, train, &flows, &names);
    let last = train.times_ns.last().copied().unwrap_or(0);
    let end = last.min(train.origin_ns.saturating_add(frame.span_ns));
    let starts: Vec<i64> = {
        let mut starts: Vec<i64> = flows.iter().map(|f| train.times_ns[f[0] as usize]).collect();
        starts.sort_unstable();
        // Of a training part that is longer in time than the real trace, as much as that.
        starts.truncate(starts.partition_point(|start| *start <= end));
        starts
    };
    let mut drawn = Drawn::default();
    for _ in 0..count {
        let flow = random.below(flows.len());
        let name = names.draw(frame, train, &flows, flow, &mut random);
        let start = {
            let at = random.below(starts.len().saturating_sub(1).max(1));
            let next = starts.get(at + 1).copied().unwrap_or(starts[at]);
            starts[at] + (random.uniform_f64() * (next - starts[at]) as f64) as i64
        };
        let number = drawn.names.len() as u32;
        chain.draw(names.class[flow], start, end, &mut random, |time, row| {
            drawn.records.push((time, number, row));
        });
        drawn.names.push(name);
    }
    drawn.into_table(frame, train, &names, &chain, &mut random)
}

/// Each flow's records.
fn flows_of(table: &Table) -> Vec<Vec<u32>> {
    let mut flows = vec![Vec::new(); table.flows()];
    for (row, &flow) in table.flow_of.iter().enumerate() {
        flows[flow as usize].push(row as u32);
    }
    flows.retain(|flow| !flow.is_empty());
    flows
}

/// What flows are called, and which of them are of one service.
struct Names {
    /// Columns of attributes.
    columns: Vec<usize>,
    /// Each flow's class.
    class: Vec<u32>,
    /// The flows of each class.
    members: Vec<Vec<u32>>,
    /// Whether a port is ephemeral, by column and category.
    is_ephemeral: HashMap<usize, Vec<bool>>,
    /// The first column of addresses.
    first_address: Option<usize>,
    /// The flows of a class that share its category.
    sharing: HashMap<(u32, u32), Vec<u32>>,
}

impl Names {
    fn of(frame: &Frame, table: &Table, flows: &[Vec<u32>]) -> Names {
        let all = frame.columns.iter().enumerate();
        let columns: Vec<usize> =
            all.filter(|(_, column)| column.is_attribute).map(|(at, _)| at).collect();
        let mut is_ephemeral = HashMap::new();
        for &at in columns.iter().filter(|&&at| frame.columns[at].role == Role::Port) {
            let mut counts = vec![0; frame.columns[at].values.len()];
            for flow in flows {
                counts[table.ids(at)[flow[0] as usize] as usize] += 1;
            }
            let number = |id: usize| frame.columns[at].number(id as u32).unwrap_or(0);
            let rare = (0..counts.len()).map(|id| number(id) >= 1024 && counts[id] < COMMON);
            is_ephemeral.insert(at, rare.collect::<Vec<bool>>());
        }
        let mut classes: HashMap<Vec<u32>, u32> = HashMap::new();
        let (mut class, mut members) = (Vec::new(), Vec::<Vec<u32>>::new());
        for (number, flow) in flows.iter().enumerate() {
            let key: Vec<u32> = columns
                .iter()
                .filter(|&&at| frame.columns[at].role != Role::Address)
                .map(|&at| match (table.ids(at).get(flow[0] as usize), is_ephemeral.get(&at)) {
                    (Some(&id), Some(rare)) if rare[id as usize] => ANY,
                    (Some(&id), _) => id,
                    (None, _) => 0,
                })
                .collect();
            let next = members.len() as u32;
            let id = *classes.entry(key).or_insert(next);
            if id == next {
                members.push(Vec::new());
            }
            members[id as usize].push(number as u32);
            class.push(id);
        }
        let first_address =
            columns.iter().copied().find(|&at| frame.columns[at].role == Role::Address);
        let mut sharing: HashMap<(u32, u32), Vec<u32>> = HashMap::new();
        if let Some(at) = first_address {
            for (number, flow) in flows.iter().enumerate() {
                let address = table.ids(at)[flow[0] as usize];
                sharing.entry((class[number], address)).or_default().push(number as u32);
            }
        }
        Names { columns, class, members, is_ephemeral, first_address, sharing }
    }

    /// A name for a flow of the class of `flow`: a cell for each of `columns`.
    fn draw(
        &self,
        frame: &mut Frame,
        table: &Table,
        flows: &[Vec<u32>],
        flow: usize,
        random: &mut Stream,
    ) -> Vec<NameCell> {
        let class = self.class[flow];
        let row = |flow: u32| flows[flow as usize][0] as usize;
        // The first address from the class, the others from the flows that share it.
        let pool = &self.members[class as usize];
        let mut like = pool[random.below(pool.len())];
        if let Some(first) = self.first_address {
            let sharing = &self.sharing[&(class, table.ids(first)[row(like)])];
            like = sharing[random.below(sharing.len())];
        }
        self.columns
            .iter()
            .map(|&at| {
                let own = flows[flow][0] as usize;
                match (&table.cells[at], self.is_ephemeral.get(&at)) {
                    (Cells::Numbers(numbers), _) => NameCell::Number(numbers[own]),
                    (Cells::Ids(ids), Some(rare)) if rare[ids[own] as usize] => {
                        let port = 1024 + random.below(65_536 - 1024) as i64;
                        NameCell::Id(frame.category(at, Cell::Int(port)))
                    }
                    (Cells::Ids(ids), _) if frame.columns[at].role == Role::Address => {
                        NameCell::Id(ids[row(like)])
                    }
                    (Cells::Ids(ids), _) => NameCell::Id(ids[own]),
                }
            })
            .collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum NameCell {
    Id(u32),
    Number(f64),
}

/// Records as tokens, and what follows what.
struct Chain {
    /// Columns of measurements.
    columns: Vec<usize>,
    /// Bins of the columns that are real numbers: the sorted values of each bin.
    bins: HashMap<usize, Vec<Vec<f64>>>,
    /// The sorted logarithms of gaps in each bin.
    gaps: Vec<Vec<f64>>,
    /// Each token: a row that has its cells, and the bin of the gap before it.
    tokens: Vec<(u32, Option<u32>)>,
    next: HashMap<(u32, u32, u32), Vec<u32>>,
}

/// Sorted values in bins of equal counts; equal values share a bin.
fn quantile_bins(mut values: Vec<f64>) -> Vec<Vec<f64>> {
    values.retain(|x| x.is_finite());
    values.sort_unstable_by(f64::total_cmp);
    let mut edges: Vec<f64> =
        (1..BINS).filter_map(|bin| values.get(bin * values.len() / BINS).copied()).collect();
    edges.dedup();
    let mut bins = Vec::with_capacity(edges.len() + 1);
    let mut from = 0;
    for edge in edges {
        let to = values.partition_point(|value| *value < edge);
        if to > from {
            bins.push(values[from..to].to_vec());
        }
        from = to;
    }
    bins.push(values[from..].to_vec());
    bins
}

/// The bin that a value belongs to: the last one that does not begin above it.
fn bin_of(bins: &[Vec<f64>], value: f64) -> u32 {
    let above = bins.partition_point(|bin| bin.first().is_some_and(|first| *first <= value));
    above.saturating_sub(1) as u32
}

impl Chain {
    fn fit(frame: &Frame, table: &Table, flows: &[Vec<u32>], names: &Names) -> Chain {
        let all = frame.columns.iter().enumerate();
        let columns: Vec<usize> =
            all.filter(|(_, column)| !column.is_attribute).map(|(at, _)| at).collect();
        // Whole numbers stay exact: 40, 52, 1500 bytes are what they are.
        let bins: HashMap<usize, Vec<Vec<f64>>> = columns
            .iter()
            .filter(|&&at| table.numbers(at).iter().any(|x| x.is_finite() && x.fract() != 0.0))
            .map(|&at| (at, quantile_bins(table.numbers(at).to_vec())))
            .collect();
        let log_gap = |from: u32, to: u32| {
            let gap = table.times_ns[to as usize] - table.times_ns[from as usize];
            (gap as f64 / 1e9 + 1e-6).ln()
        };
        let pairs = flows.iter().flat_map(|flow| flow.windows(2));
        let gaps = quantile_bins(pairs.map(|pair| log_gap(pair[0], pair[1])).collect());
        let mut chain = Chain { columns, bins, gaps, tokens: Vec::new(), next: HashMap::new() };
        let mut index: HashMap<Vec<u64>, u32> = HashMap::new();
        for (flow, rows) in flows.iter().enumerate() {
            let class = names.class[flow];
            let (mut before, mut last) = (BEGIN, BEGIN);
            let mut previous: Option<u32> = None;
            for &row in rows {
                let gap = previous.map(|previous| bin_of(&chain.gaps, log_gap(previous, row)));
                let token = chain.token(table, row, gap, &mut index);
                chain.follow(class, before, last, token);
                (before, last, previous) = (last, token, Some(row));
            }
            chain.follow(class, before, last, END);
        }
        chain
    }

    fn token(
        &mut self,
        table: &Table,
        row: u32,
        gap: Option<u32>,
        index: &mut HashMap<Vec<u64>, u32>,
    ) -> u32 {
        let cell = |&at: &usize| match (&table.cells[at], self.bins.get(&at)) {
            (Cells::Ids(ids), _) => ids[row as usize].into(),
            (Cells::Numbers(numbers), Some(_)) if numbers[row as usize].is_nan() => u64::MAX,
            (Cells::Numbers(numbers), Some(bins)) => bin_of(bins, numbers[row as usize]).into(),
            (Cells::Numbers(numbers), None) => numbers[row as usize].to_bits(),
        };
        let mut key: Vec<u64> = self.columns.iter().map(cell).collect();
        key.push(gap.map_or(u64::MAX, u64::from));
        let next = self.tokens.len() as u32;
        let token = *index.entry(key).or_insert(next);
        if token == next {
            self.tokens.push((row, gap));
        }
        token
    }

    fn follow(&mut self, class: u32, before: u32, last: u32, token: u32) {
        for context in [(class, before, last), (class, ANY, last), (ANY, ANY, last)] {
            self.next.entry(context).or_default().push(token);
        }
    }

    /// Draws a flow: `record` gets each record's time and the row that it is like.
    fn draw(
        &self,
        class: u32,
        start: i64,
        end: i64,
        random: &mut Stream,
        mut record: impl FnMut(i64, u32),
    ) {
        let (mut before, mut last) = (BEGIN, BEGIN);
        let mut time = start;
        for number in 0..MOST_RECORDS {
            let exact = self.next.get(&(class, before, last));
            let narrow = exact.filter(|next| next.len() >= FEW || random.uniform() >= 0.5);
            let wide = || self.next.get(&(class, ANY, last));
            let Some(next) = narrow.or_else(wide).or_else(|| self.next.get(&(ANY, ANY, last)))
            else {
                break;
            };
            let token = next[random.below(next.len())];
            if token == END {
                break;
            }
            let (row, gap) = self.tokens[token as usize];
            if number > 0 {
                let bin = &self.gaps[gap.unwrap_or(0) as usize];
                if !bin.is_empty() {
                    let gap = bin[random.below(bin.len())].exp() - 1e-6;
                    time = time.saturating_add((gap.max(0.0) * 1e9) as i64);
                }
            }
            if time > end {
                break;
            }
            record(time, row);
            (before, last) = (last, token);
        }
    }
}

/// What was drawn.
#[derive(Default)]
struct Drawn {
    /// Time, flow, and the row of the training table that it is like.
    records: Vec<(i64, u32, u32)>,
    names: Vec<Vec<NameCell>>,
}

impl Drawn {
    fn into_table(
        mut self,
        frame: &Frame,
        train: &Table,
        names: &Names,
        chain: &Chain,
        random: &mut Stream,
    ) -> Table {
        self.records.sort_by_key(|(time, ..)| *time);
        let name = |at: usize, flow: u32| {
            let place = names.columns.iter().position(|&column| column == at);
            place.map(|place| self.names[flow as usize][place])
        };
        let rows = || self.records.iter().map(|&(_, flow, row)| (flow, row as usize));
        let mut cells = Vec::with_capacity(train.cells.len());
        for (at, like) in train.cells.iter().enumerate() {
            cells.push(match (like, chain.bins.get(&at)) {
                (Cells::Ids(ids), _) => Cells::Ids(
                    rows()
                        .map(|(flow, row)| match name(at, flow) {
                            Some(NameCell::Id(id)) => id,
                            _ => ids[row],
                        })
                        .collect(),
                ),
                (Cells::Numbers(numbers), Some(bins)) => Cells::Numbers(
                    rows()
                        .map(|(_, row)| match numbers[row] {
                            number if number.is_nan() => number,
                            number => {
                                let bin = &bins[bin_of(bins, number) as usize];
                                bin.get(random.below(bin.len())).copied().unwrap_or(number)
                            }
                        })
                        .collect(),
                ),
                (Cells::Numbers(numbers), None) => Cells::Numbers(
                    rows()
                        .map(|(flow, row)| match name(at, flow) {
                            Some(NameCell::Number(number)) => number,
                            _ => numbers[row],
                        })
                        .collect(),
                ),
            });
        }
        // Flows that were given the same name are one.
        let mut same: HashMap<Vec<u64>, usize> = HashMap::new();
        let mut flows: Vec<Vec<u32>> = Vec::new();
        for (row, &(_, flow, _)) in self.records.iter().enumerate() {
            let key = self.names[flow as usize].iter().map(|cell| match cell {
                NameCell::Id(id) => u64::from(*id),
                NameCell::Number(number) => number.to_bits(),
            });
            let next = flows.len();
            let at = *same.entry(key.collect()).or_insert(next);
            if at == next {
                flows.push(Vec::new());
            }
            flows[at].push(row as u32);
        }
        let times_ns = self.records.iter().map(|(time, ..)| *time).collect();
        let origin_ns = train.origin_ns;
        let mut table = Table { times_ns, origin_ns, cells, ..Table::default() };
        table.flows_as_they_are(&flows, frame);
        table
    }
}
