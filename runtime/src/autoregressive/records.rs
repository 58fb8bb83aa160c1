//! What is drawn record by record.

use std::cell::Cell;
use std::sync::Arc;

use ns_model_format::Schema;
use ns_model_format::autoregressive::Autoregressive;
use ns_model_format::autoregressive::{RecordSays, budget_bucket, count_bucket};
use ns_model_format::codec::{Codec, TokensCodec};
use ns_model_format::schema::packet_field;

use super::head::{Known, RecordHead, STEERED_FROM, elapsed_us, room_us};
use super::sample::Draws;
use super::tables::Tables;
use super::{CLOCK, InLanes, Recurrent, Widths};
use crate::error::RuntimeError;
use crate::kernels::{sum, wide};
use crate::program::{Lanes, Rows, RowsMut};
use crate::stages::{Stage, timed};

/// Gaps are steered by so much at most; by more where a flow would not end before the span.
const MOST_STEERED: f64 = 2.0;
const MOST_PRESSED: f64 = 16.0;
/// Place within a bin of what has no draw of its own.
const MIDDLE: f32 = 0.5;
/// Values of a record's row before its measurements: the gap in microseconds, and
/// whether another record follows.
pub(crate) const BEFORE_SAID: usize = 2;
/// Values of a measurement: its token, the place within a bin, and the ticks that steps add.
pub(crate) const SAID: usize = 3;

/// Where a measurement's token comes from.
#[derive(Clone, Debug)]
enum Source {
    Head(usize),
    /// A joint head, and the place in its combinations.
    Joint(usize, usize),
    /// For records of a direction, or all, where in a row of gates it is; and how many
    /// tokens say a value.
    Constant(Vec<(Option<u8>, usize)>, usize),
}

pub(super) struct Records<L, S> {
    tables: Arc<Tables>,
    step: S,
    heads: Vec<RecordHead>,
    /// The heads'.
    graphs: Vec<L>,
    widths: Widths,
    gap: TokensCodec,
    sources: Vec<Source>,
    /// The head that says a record's direction, and which its tokens say.
    direction: Option<(usize, Vec<u8>)>,
    rows: usize,
    /// What is kept of each flow: [`Widths::progress`].
    progress: Vec<f32>,
    /// Buckets of the records left and of the time left for a gap.
    buckets: Vec<(usize, usize)>,
    /// `[rows, heads x E]`: what heads are given but for the tokens of those before.
    all: Vec<f32>,
    /// `[rows, heads]`.
    tokens: Vec<u32>,
    draws: Draws,
    out: Vec<f32>,
}

impl<L: InLanes, S: Recurrent> Records<L, S> {
    pub(super) fn new(
        model: &Autoregressive,
        schema: &Schema,
        tables: Arc<Tables>,
        step: S,
        graphs: Vec<L>,
    ) -> Records<L, S> {
        let widths = Widths::of(model);
        let gap = model.heads.iter().find_map(|head| match &head.says {
            RecordSays::Gap { tokens } => Some(tokens.clone()),
            _ => None,
        });
        // A bundle was checked for having one.
        let gap = gap.unwrap_or_else(|| TokensCodec::of_counts(1));
        let sources: Vec<Source> = (0..schema.measurements.len())
            .map(|measurement| source(model, widths, measurement))
            .collect();
        Records {
            tables,
            step,
            heads: RecordHead::all(model),
            graphs,
            widths,
            gap,
            direction: direction(model, schema, &sources),
            sources,
            rows: 0,
            progress: Vec::new(),
            buckets: Vec::new(),
            all: Vec::new(),
            tokens: Vec::new(),
            draws: Draws::default(),
            out: Vec::new(),
        }
    }

    pub(super) fn resize(&mut self, rows: usize) -> Result<(), RuntimeError> {
        self.progress.resize(rows * self.widths.progress(), 0.0);
        self.rows = rows;
        self.step.resize(rows)
    }

    /// The LSTM's two states, then the flow's progress.
    pub(super) fn state(&mut self, index: usize) -> Result<&mut [f32], RuntimeError> {
        match index {
            2 => Ok(&mut self.progress),
            lstm => self.step.state(lstm),
        }
    }

    /// The last step's records.
    pub(super) fn rows(&self) -> &[f32] {
        &self.out
    }

    pub(super) fn step(&mut self, gates: &[f32], noise: &[f32]) -> Result<(), RuntimeError> {
        self.begin(gates)?;
        self.tokens.clear();
        self.tokens.resize(self.rows * self.heads.len(), 0);
        (0..self.heads.len())
            .try_for_each(|head| timed(Stage::Heads, || self.draw(head, gates, noise)))?;
        timed(Stage::Records, || self.finish(gates, noise));
        Ok(())
    }

    /// Steps the LSTM, which is given the flow, the record before, what is left.
    fn begin(&mut self, gates: &[f32]) -> Result<(), RuntimeError> {
        let Records { widths, tables, step, buckets, progress, all, rows, .. } = self;
        let Widths { lstm, heads, .. } = *widths;
        let all_dim = heads * widths.head;
        buckets.resize(*rows, (0, 0));
        all.resize(*rows * all_dim, 0.0);
        let buckets = Cell::from_mut(&mut buckets[..]).as_slice_of_cells();
        let progress = progress.chunks_exact(widths.progress());
        let mut rows = gates.chunks_exact(widths.gates()).zip(progress).zip(buckets);
        let mut fill = |mut xs: RowsMut<'_>| {
            wide(
                #[inline(always)]
                || {
                    let mut terms = Vec::new();
                    for (x, ((gates, progress), buckets)) in xs.iter_mut().zip(&mut rows) {
                        let (records, plan_us) = widths.plan(gates);
                        let (before, clock) = progress.split_at(heads);
                        let index = clock[0] as u32;
                        let gaps = records.saturating_sub(index.max(1));
                        let remaining = count_bucket(records.saturating_sub(index));
                        let budget = budget_bucket(plan_us - elapsed_us(clock), gaps);
                        terms.clear();
                        terms.push(&gates[..lstm]);
                        for (table, &before) in tables.record.iter().zip(before) {
                            // Without a record before, past the last token.
                            terms.push(table.row((before as usize).wrapping_sub(1)));
                        }
                        terms.push(tables.record_remaining.row(remaining));
                        terms.push(tables.record_index.row(count_bucket(index)));
                        terms.push(tables.record_budget.row(budget));
                        sum(&terms, x);
                        buckets.set((remaining, budget));
                    }
                },
            );
        };
        let alls = all.chunks_exact_mut(all_dim);
        let mut rows = alls.zip(gates.chunks_exact(widths.gates())).zip(buckets);
        let mut take = |heads: Rows<'_>| {
            wide(
                #[inline(always)]
                || {
                    for (heads, ((all, gates), buckets)) in heads.iter().zip(&mut rows) {
                        let (remaining, budget) = buckets.get();
                        let (remaining, budget) =
                            (tables.head_remaining.row(remaining), tables.head_budget.row(budget));
                        sum(&[heads, &gates[lstm..][..all_dim], remaining, budget], all);
                    }
                },
            );
        };
        step.step(
            &[],
            |xs| timed(Stage::Inputs, || fill(xs)),
            |heads| timed(Stage::Inputs, || take(heads)),
        )
    }

    /// Draws one head's token for every row.
    fn draw(&mut self, at: usize, gates: &[f32], noise: &[f32]) -> Result<(), RuntimeError> {
        let Records { widths, tables, heads, graphs, all, draws, progress, .. } = self;
        let (count, part) = (heads.len(), at * widths.head..(at + 1) * widths.head);
        let tokens = Cell::from_mut(&mut self.tokens[..]).as_slice_of_cells();
        let all = all.chunks_exact(count * widths.head);
        let mut rows = all.zip(tokens.chunks_exact(count));
        let fill = |mut heads: RowsMut<'_>| {
            wide(
                #[inline(always)]
                || {
                    let mut terms = Vec::new();
                    let rows = heads.iter_mut().zip(&mut rows);
                    for (out, (all, tokens)) in rows {
                        terms.clear();
                        terms.push(&all[part.clone()]);
                        for (table, token) in tables.heads[at].iter().zip(tokens) {
                            terms.push(table.row(token.get() as usize));
                        }
                        sum(&terms, out);
                    }
                },
            );
        };
        let (head, known) = (&heads[at], Known { widths: *widths, gates, progress, tokens });
        let mut sample = |logits: Lanes<'_>| {
            wide(
                #[inline(always)]
                || head.draw(&known, logits, |row| noise[2 * (row * count + at)], draws),
            );
        };
        graphs[at].run(self.rows, fill, |logits| {
            timed(Stage::RecordTokens, || sample(logits));
        })
    }

    /// Writes the records, and moves every flow on.
    fn finish(&mut self, gates: &[f32], noise: &[f32]) {
        let Records { widths, heads, sources, out, .. } = self;
        let (count, out_dim) = (heads.len(), BEFORE_SAID + SAID * sources.len());
        out.resize(self.rows * out_dim, 0.0);
        let progress = self.progress.chunks_exact_mut(widths.progress());
        let rows = self.tokens.chunks_exact_mut(count).zip(progress);
        let given = gates.chunks_exact(widths.gates()).zip(noise.chunks_exact(2 * count));
        let rows = rows.zip(given).zip(out.chunks_exact_mut(out_dim));
        for (((tokens, progress), (gates, noise)), out) in rows {
            for (head, &token) in heads.iter().zip(&*tokens) {
                if let Some(joint) = &head.joint {
                    joint.note(token, gates, progress);
                }
            }
            let (before, rest) = progress.split_at_mut(count);
            let (clock, rest) = rest.split_at_mut(CLOCK);
            let mut gap_us = 0.0;
            if clock[0] == 0.0 {
                tokens[count - 1] = 0;
            } else {
                let within = f64::from(noise[2 * count - 1]);
                let drawn_us = self.gap.number_at(tokens[count - 1], within).max(0.0);
                let is_exact = self.gap.is_exact(tokens[count - 1]);
                let plan = widths.plan(gates);
                let span_us = widths.left_us(gates);
                let factor = if is_exact { 1.0 } else { steer(plan, span_us, clock) };
                gap_us = factor * drawn_us;
                let room_us = room_us(plan, span_us, clock);
                if gap_us > room_us {
                    gap_us = within * room_us;
                }
                clock[3] += drawn_us as f32;
                clock[4] = clock[4].max(drawn_us as f32);
            }
            let (records, _) = widths.plan(gates);
            clock[0] += 1.0;
            let mut us = f64::from(clock[2]) + gap_us;
            if us >= 1e6 {
                let seconds = (us / 1e6).floor();
                clock[1] += seconds as f32;
                us = (us - seconds * 1e6).max(0.0);
            }
            clock[2] = us as f32;
            for (before, &token) in before.iter_mut().zip(&*tokens) {
                *before = (token + 1) as f32;
            }
            let (before_said, out) = out.split_at_mut(BEFORE_SAID);
            before_said.copy_from_slice(&[gap_us as f32, f32::from((clock[0] as u32) < records)]);
            let direction = self.direction.as_ref();
            let direction =
                direction.and_then(|(head, of)| of.get(tokens[*head] as usize)).copied();
            for (source, out) in sources.iter().zip(out.as_chunks_mut().0) {
                let said: [f32; SAID] = match source {
                    Source::Head(at) => {
                        let (head, token) = (&heads[*at], tokens[*at] as usize);
                        let said = [token as f32, noise[2 * at + 1], 0.0];
                        let own = head.size - head.steps.len();
                        if head.steps.is_empty() {
                            said
                        } else {
                            let kept = &mut rest[head.kept - count - CLOCK..][..SAID];
                            match head.steps.get(token.wrapping_sub(own)) {
                                Some(step) => kept[2] += step,
                                None => kept.copy_from_slice(&said),
                            }
                            [kept[0], kept[1], kept[2]]
                        }
                    }
                    Source::Joint(head, place) => {
                        let joint = heads[*head].joint.as_ref();
                        let fields = joint.map(|j| &j.combinations[tokens[*head] as usize]);
                        [fields.map_or(0.0, |fields| fields[*place] as f32), MIDDLE, 0.0]
                    }
                    Source::Constant(places, values) => {
                        let is_of = |of: &Option<u8>| {
                            of.zip(direction).is_none_or(|(of, direction)| of == direction)
                        };
                        let place = places.iter().find(|(of, _)| is_of(of)).map(|&(_, at)| at);
                        let found = place.map(|at| [gates[at], gates[at + 1], 0.0]);
                        found
                            .filter(|[token, ..]| (*token as usize) < *values)
                            .unwrap_or([0.0, MIDDLE, 0.0])
                    }
                };
                *out = said;
            }
        }
    }
}

/// What a gap is multiplied by, so that a long flow takes about as long as planned: the mean
/// that is left to each gap over the mean of those drawn, within limits. What is left of the
/// span leaves no choice: a flow is pressed into it, rather than that its end comes all at
/// once. The longest gap does not count there: there need not be another.
fn steer((records, plan_us): (u32, f64), span_us: f64, clock: &[f32]) -> f64 {
    let index = clock[0] as u32;
    let [sum_us, longest_us] = [clock[3], clock[4]].map(f64::from);
    if index < STEERED_FROM || sum_us <= 0.0 || plan_us <= 0.0 {
        return 1.0;
    }
    let left = f64::from(records.saturating_sub(index).max(1));
    let left_us = |until_us: f64| (until_us - elapsed_us(clock)).max(0.0) / left;
    let mean_us = sum_us / f64::from(index - 1);
    let rest_us = (sum_us - longest_us) / f64::from(index - 2);
    let planned = (left_us(plan_us) / mean_us).clamp(1.0 / MOST_STEERED, MOST_STEERED);
    let fits = if rest_us > 0.0 { left_us(span_us) / rest_us } else { f64::INFINITY };
    if fits < planned { planned.min(fits.max(1.0 / MOST_PRESSED)) } else { planned }
}

impl Widths {
    /// How many records a row of gates plans, and the microseconds from first to last.
    pub(super) fn plan(self, gates: &[f32]) -> (u32, f64) {
        let at = self.context();
        (gates[at] as u32, f64::from(gates[at + 1]))
    }

    /// The microseconds from a flow's start to the end of its span.
    pub(super) fn left_us(self, gates: &[f32]) -> f64 {
        f64::from(gates[self.context() + 2])
    }
}

fn source(model: &Autoregressive, widths: Widths, measurement: usize) -> Source {
    for (at, head) in model.heads.iter().enumerate() {
        match &head.says {
            RecordSays::Field { field, .. } if *field == measurement => return Source::Head(at),
            RecordSays::Joint { fields, .. } => {
                if let Some(place) = fields.iter().position(|field| *field == measurement) {
                    return Source::Joint(at, place);
                }
            }
            _ => {}
        }
    }
    let first = widths.constants_from();
    let (mut places, mut values) = (Vec::new(), usize::MAX);
    for (at, (_, direction, variable)) in
        model.constants().enumerate().filter(|(_, (of, ..))| *of == measurement)
    {
        places.push((direction, first + 2 * at));
        // The last token says that there are no such records.
        values = values.min(model.attributes[variable].size - 1);
    }
    Source::Constant(places, values)
}

/// The head that says a record's direction, and which each of its tokens says.
fn direction(
    model: &Autoregressive,
    schema: &Schema,
    sources: &[Source],
) -> Option<(usize, Vec<u8>)> {
    let is_direction = |name: &str| name == packet_field::DIRECTION;
    let field = schema.measurements.iter().position(|field| is_direction(&field.name))?;
    let Codec::Tokens(codec) = &schema.measurements[field].codec else { return None };
    let said = |token: u32| codec.value(&[token], 0.5).as_i64().unwrap_or(0) as u8;
    match &sources[field] {
        Source::Head(head) => {
            Some((*head, (0..model.heads[*head].size as u32).map(said).collect()))
        }
        Source::Joint(head, place) => match &model.heads[*head].says {
            RecordSays::Joint { combinations, .. } => {
                Some((*head, combinations.iter().map(|tokens| said(tokens[*place])).collect()))
            }
            _ => None,
        },
        Source::Constant(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a flow takes whose gaps are drawn so, beside what is planned.
    fn takes_us(plan: (u32, f64), span_us: f64, gap_us: impl Fn(u32) -> f64) -> f64 {
        let mut clock = [1.0_f32, 0.0, 0.0, 0.0, 0.0];
        for at in 1..plan.0 {
            let us = f64::from(clock[2]) + steer(plan, span_us, &clock) * gap_us(at);
            clock[0] += 1.0;
            clock[1] += (us / 1e6).floor() as f32;
            clock[2] = (us % 1e6) as f32;
            clock[3] += gap_us(at) as f32;
            clock[4] = clock[4].max(gap_us(at) as f32);
        }
        f64::from(clock[1]) * 1e6 + f64::from(clock[2])
    }

    #[test]
    fn long_flows_take_about_as_long_as_planned() {
        let uneven = |mean_us: f64| move |at: u32| mean_us * (0.5 + f64::from(at % 11) / 10.0);
        // Gaps of 150 us on average where 100 are planned; in the end of 30.
        for (drawn_us, planned_us) in [(150.0, 100.0), (30.0, 100.0), (100.0, 100.0)] {
            let plan = (1_000, planned_us * 999.0);
            let took_us = takes_us(plan, 1e9, uneven(drawn_us));
            let least = if drawn_us < 50.0 { 0.55 } else { 0.98 };
            assert!((least..1.02).contains(&(took_us / plan.1)), "{drawn_us}: {took_us}");
        }
        // Of 800, which only the end of the span keeps from taking four times as long.
        let plan = (1_000, 1e5);
        for (span_us, expected) in [(1e9, 4.0..4.5), (2e5, 1.98..2.02), (1.2e5, 1.19..1.21)] {
            let took_us = takes_us(plan, span_us, uneven(800.0));
            assert!(expected.contains(&(took_us / plan.1)), "{span_us}: {took_us}");
        }
        // The first of a hundred gaps leaves time for the others: a quarter of the planned.
        let clock = [1.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(room_us((101, 1e4), 1e6, &clock), 1e6 - 99.0 * 25.0);
        assert_eq!(room_us((101, 1e4), 1e3, &clock), 10.0);
        assert_eq!(room_us((2, 1e4), 1e3, &clock), 1e3);
        assert_eq!(room_us((101, 1e4), 1e3, &[1.0, 0.0, 1e3, 0.0, 0.0]), 0.0);
        // The first records are as drawn, and so are flows without time.
        assert_eq!(steer((100, 1.0), 9.0, &[15.0, 0.0, 9e5, 9e5, 9e5]), 1.0);
        assert_eq!(steer((100, 0.0), 9.0, &[50.0, 0.0, 0.0, 0.0, 0.0]), 1.0);
        assert_eq!(steer((100, 5.0), 9.0, &[50.0, 0.0, 9.0, 9.0, 9.0]), 1.0 / MOST_STEERED);
        assert_eq!(steer((100, 5.0), 9.0, &[50.0, 0.0, 9.0, 9.0, 1.0]), 1.0 / MOST_PRESSED);
    }
}
