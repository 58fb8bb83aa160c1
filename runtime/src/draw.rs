//! Where flows' attributes come from.
//!
//! The seam for conditions is in `plan.rs`, which says what a try of a flow is: a draw, or
//! drafts of a model that draws attributes given some of them. Here flows are tried until
//! they are as they are wanted.

mod again;
mod distinct;
mod plan;
mod tilt;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ns_model_format::Value;
use ns_model_format::autoregressive::{Autoregressive, Says, Variable};
use ns_model_format::random::{Purpose, Stream};

use crate::autoregressive::{Drafts, Rule, forced_places};
use crate::counters::Counters;
use crate::decode::AttributeDecoder;
use crate::error::RuntimeError;
use crate::form::{Form, Noise, NoiseKind};
use crate::given::GivenFlows;
use crate::networks::Networks;
use crate::stages::{Stage, timed};
use crate::strata::Strata;
use crate::timeline::Key;
pub(crate) use distinct::Distinct;
pub(crate) use plan::DrawPlan;
use plan::{Means, Try};

/// Rows drawn at once while few flows are left to match.
const MOST_ROWS: usize = 256;
/// Drafts made at once.
const MOST_DRAFTS: usize = 4096;
/// Draws among which a given flow finds what was not given with it.
const CANDIDATES: usize = 16;

/// Draws the attributes of flows, batch by batch.
pub(crate) struct Drawer {
    plan: DrawPlan,
    seed: u64,
    /// One a chunk, and that of the flows that are being drawn.
    noises: Vec<Noise>,
    attribute_noise: Noise,
    /// Tokens that a condition may give.
    forced: usize,
    /// The numbers of every flow's first try, where they are uniform.
    strata: Option<Strata>,
    /// The variables of the field that is drawn last, which tells flows apart best.
    last_field: Vec<usize>,
    /// The last draft that was made of each of the flows drawn, up to the try that was kept.
    attempts: Vec<u32>,
    counters: Arc<Counters>,
    noise: Vec<f32>,
    condition: Vec<f32>,
    rows: Vec<f32>,
    /// Logarithms of the weights of these rows.
    logs: Vec<f64>,
}

/// Flows whose attributes are to be drawn.
pub(crate) struct Wanted<'a> {
    /// Their starts and numbers. Those that cannot be drawn are taken out.
    pub(crate) keys: &'a mut Vec<Key>,
    /// Their conditions, of the same width each; taken out likewise.
    pub(crate) condition: &'a mut Vec<f32>,
    /// Takes their attributes, made discrete.
    pub(crate) rows: &'a mut Vec<f32>,
}

/// The variables of the field that is drawn last; and if a pair may tell it, the pair and
/// its other field too.
fn last_field(model: &Autoregressive) -> Vec<usize> {
    let field = |variable: &Variable| match variable.says {
        Says::Field { field, .. } => Some(field),
        _ => None,
    };
    let last = model.attributes.iter().filter_map(field).next_back();
    let pairs = model.attributes.iter().filter_map(|variable| match &variable.says {
        Says::Pair { fields, .. } => Some(fields),
        _ => None,
    });
    let of_pair = pairs.into_iter().find(|fields| last.is_some_and(|last| fields.contains(&last)));
    let is_drawn = |variable: &Variable| match (&variable.says, of_pair) {
        (Says::Pair { fields, .. }, Some(of)) => fields == of,
        (Says::Field { field, .. }, Some(of)) => of.contains(field),
        (Says::Field { field, .. }, None) => Some(*field) == last,
        _ => false,
    };
    let variables = model.attributes.iter().enumerate();
    variables.filter(|(_, variable)| is_drawn(variable)).map(|(at, _)| at).collect()
}

impl Drawer {
    /// `forms` has at least one.
    pub(crate) fn new(
        plan: DrawPlan,
        seed: u64,
        forms: &[Form],
        counters: Arc<Counters>,
    ) -> Drawer {
        Drawer {
            seed,
            noises: forms.iter().map(|form| form.attribute_noise).collect(),
            attribute_noise: forms[0].attribute_noise,
            forced: forms[0].tokens().map_or(0, |model| forced_places(model).len()),
            strata: (forms[0].attribute_noise.kind == NoiseKind::Uniform)
                .then(|| Strata::new(seed, forms[0].attribute_noise.dim)),
            last_field: forms[0].tokens().map(last_field).unwrap_or_default(),
            attempts: Vec::new(),
            plan,
            counters,
            noise: Vec::new(),
            condition: Vec::new(),
            rows: Vec::new(),
            logs: Vec::new(),
        }
    }

    /// Appends the tokens that a flow must have to its condition: -1 where any will do.
    pub(crate) fn write_forced(&self, flow: u64, condition: &mut Vec<f32>) {
        match self.plan.given().map(|given| given.folded(flow)) {
            Some(tokens) if tokens.len() == self.forced => condition.extend_from_slice(tokens),
            _ => condition.extend(std::iter::repeat_n(-1.0, self.forced)),
        }
    }

    /// Draws the attributes of at least one flow, unless none can be; all start
    /// in one chunk, whose networks these are.
    pub(crate) fn draw<N: Networks>(
        &mut self,
        networks: &mut N,
        decoder: &mut AttributeDecoder,
        chunk: usize,
        wanted: Wanted<'_>,
    ) -> Result<(), RuntimeError> {
        self.attribute_noise = self.noises[chunk];
        self.attempts.clear();
        self.attempts.resize(wanted.keys.len(), 0);
        if wanted.keys.is_empty() {
            return Ok(());
        }
        match &self.plan.means {
            Means::Free if !self.plan.selection.is_on_versions() => {
                self.draw_free(networks, decoder, wanted)
            }
            Means::Like(given) => {
                let given = given.clone();
                self.draw_like(networks, decoder, wanted, &given)
            }
            _ => self.draw_matching(networks, decoder, wanted),
        }
    }

    /// Puts the values of a flow's attributes in place that are given, since not every
    /// number survives its encoding to the last digit.
    pub(crate) fn keep_given(&self, flow: u64, values: &mut [Value]) {
        let Some(given) = self.plan.given() else { return };
        for ((value, &given), is_given) in
            values.iter_mut().zip(given.values(flow)).zip(given.is_given())
        {
            if *is_given {
                *value = given;
            }
        }
    }

    fn push_noise(&mut self, flow: u64, attempt: u32) {
        let from = self.noise.len();
        self.noise.resize(from + self.attribute_noise.dim, 0.0);
        if let (0, Some(strata)) = (attempt, &mut self.strata) {
            strata.fill(flow, &mut self.noise[from..]);
            return;
        }
        let block = attempt.wrapping_mul(self.attribute_noise.blocks());
        let stream = Stream::at(self.seed, Purpose::Attributes, flow, block);
        self.attribute_noise.fill(stream, &mut self.noise[from..]);
    }

    /// Noise like that of try `kept`, but for the field that is drawn last.
    fn push_noise_of_last_field(&mut self, flow: u64, kept: u32, attempt: u32) {
        let from = self.noise.len();
        self.push_noise(flow, kept);
        self.push_noise(flow, attempt);
        let (kept, new) = self.noise[from..].split_at_mut(self.attribute_noise.dim);
        for &variable in &self.last_field {
            let of_variable = 2 * variable..2 * variable + 2;
            kept[of_variable.clone()].copy_from_slice(&new[of_variable]);
        }
        self.noise.truncate(from + self.attribute_noise.dim);
    }

    fn draw_free<N: Networks>(
        &mut self,
        networks: &mut N,
        decoder: &mut AttributeDecoder,
        Wanted { keys, condition, rows }: Wanted<'_>,
    ) -> Result<(), RuntimeError> {
        self.noise.clear();
        keys.iter().for_each(|key| self.push_noise(key.flow, 0));
        timed(Stage::Attributes, || networks.attributes(keys.len(), &self.noise, condition, rows))?;
        let width = rows.len() / keys.len().max(1);
        rows.chunks_exact_mut(width.max(1)).for_each(|row| decoder.make_discrete(row));
        Ok(())
    }

    /// Draws until flows are as they are wanted. Every draft of a flow has noise of its own, so
    /// neither the company nor how many tries are made at once changes which one is the first.
    fn draw_matching<N: Networks>(
        &mut self,
        networks: &mut N,
        decoder: &mut AttributeDecoder,
        Wanted { keys, condition, rows }: Wanted<'_>,
    ) -> Result<(), RuntimeError> {
        let selection = Arc::clone(&self.plan.selection);
        let chooses = selection.is_on_attributes();
        let (most_drafts, gives_up) = self.plan.most_drafts();
        // What is given in full is of the versions that the user wants.
        let is_kept = self.plan.given().is_some_and(|given| given.are_all_given());
        let condition_dim = condition.len() / keys.len().max(1);
        let mut accepted: Vec<Option<Box<[f32]>>> = vec![None; keys.len()];
        let mut pending: Vec<usize> = (0..keys.len()).collect();
        let (mut drafts, mut draws, mut mixed, mut each) = (0, 0, 0, 1);
        while !pending.is_empty() && drafts < most_drafts {
            let how = self.plan.try_at(drafts);
            let at_once = (MOST_DRAFTS / (each * how.drafts) as usize).max(1);
            let mut left = Vec::new();
            for flows in pending.chunks(at_once) {
                let first_of =
                    |flow: usize| (0..each).map(move |k| (flow, drafts + k * how.drafts));
                let tries: Vec<(usize, u32)> =
                    flows.iter().flat_map(|&flow| first_of(flow)).collect();
                self.push_tries(how, &tries, keys, condition, |_| None);
                timed(Stage::Attributes, || self.make_tries(networks, how))?;
                let width = self.rows.len() / tries.len();
                let mut found = self.rows.chunks_exact_mut(width).zip(&self.logs);
                for of_flow in tries.chunks_exact(each as usize) {
                    let mut is_left = true;
                    for (&(flow, draft), (row, &log)) in of_flow.iter().zip(&mut found) {
                        if !is_left {
                            continue;
                        }
                        draws += u64::from(how.drafts);
                        let last = draft + how.drafts - 1;
                        // Without conditions no flow is left out.
                        let is_last = !gives_up && last + 1 >= most_drafts;
                        if log == f64::NEG_INFINITY && !is_last {
                            continue;
                        }
                        decoder.make_discrete(row);
                        let values = decoder.decode(row);
                        let is_one = is_kept || selection.is_of_one_version(&values);
                        mixed += u64::from(!is_one);
                        if is_last
                            || (is_one && selection.wants_flow(keys[flow].flow, draft, &values))
                        {
                            self.attempts[flow] = last;
                            accepted[flow] = Some((&*row).into());
                            is_left = false;
                        }
                    }
                    left.extend(of_flow.first().filter(|_| is_left).map(|&(flow, _)| flow));
                }
            }
            pending = left;
            drafts += each * how.drafts;
            // Few at first: where most flows match, more would be for nothing.
            let most = (MOST_ROWS / pending.len().max(1)).max(1) as u32;
            each = match self.plan.tries_left(drafts) {
                Some(left) => (each * 2).min(most).min(left),
                None => 1,
            };
        }
        self.counters.mixed_versions.fetch_add(mixed, Relaxed);
        if chooses {
            let given_up = pending.len() as u64;
            self.counters.draws.fetch_add(draws, Relaxed);
            self.counters.flows_drawn.fetch_add(keys.len() as u64 - given_up, Relaxed);
            self.counters.flows_given_up.fetch_add(given_up, Relaxed);
        }
        for flow in pending {
            selection.flow_given_up(keys[flow].flow)?;
        }
        rows.clear();
        let mut kept = 0;
        for (flow, row) in accepted.iter().enumerate() {
            let Some(row) = row else { continue };
            rows.extend_from_slice(row);
            keys[kept] = keys[flow];
            self.attempts[kept] = self.attempts[flow];
            let from = flow * condition_dim;
            condition.copy_within(from..from + condition_dim, kept * condition_dim);
            kept += 1;
        }
        keys.truncate(kept);
        condition.truncate(kept * condition_dim);
        Ok(())
    }

    /// Noise and conditions of tries, of flows from a draft on. Of a flow that `keeps` a draft
    /// all is as in that, but for the field that is drawn last.
    fn push_tries(
        &mut self,
        how: Try,
        tries: &[(usize, u32)],
        keys: &[Key],
        condition: &[f32],
        keeps: impl Fn(usize) -> Option<u32>,
    ) {
        let condition_dim = condition.len() / keys.len().max(1);
        self.noise.clear();
        self.condition.clear();
        for &(flow, first) in tries {
            for draft in first..first + how.drafts {
                match keeps(flow) {
                    Some(kept) => self.push_noise_of_last_field(keys[flow].flow, kept, draft),
                    None => self.push_noise(keys[flow].flow, draft),
                }
            }
            self.condition.extend_from_slice(&condition[flow * condition_dim..][..condition_dim]);
        }
    }

    /// Makes the tries whose noise and conditions there are: a row each, and its weight.
    fn make_tries<N: Networks>(
        &mut self,
        networks: &mut N,
        Try { drafts, rule }: Try,
    ) -> Result<(), RuntimeError> {
        let Drawer { noise, condition, rows, logs, plan, attribute_noise, .. } = self;
        match plan.wished().filter(|_| rule != Rule::All) {
            None => {
                let count = noise.len() / attribute_noise.dim.max(1);
                logs.clear();
                logs.resize(count, 0.0);
                networks.attributes(count, noise, condition, rows)
            }
            Some(wished) => {
                let (each, wishes) = (drafts as usize, &wished.wishes);
                networks.drafts(&Drafts { each, noise, condition, wishes, rule }, rows, logs)
            }
        }
    }

    /// Whether a flow goes on after its first segment, and its own scales,
    /// cannot be given. The model draws some flows at the same start, and the one
    /// most like the given flow lends it these.
    fn draw_like<N: Networks>(
        &mut self,
        networks: &mut N,
        decoder: &mut AttributeDecoder,
        Wanted { keys, condition, rows }: Wanted<'_>,
        given: &GivenFlows,
    ) -> Result<(), RuntimeError> {
        let width = decoder.width();
        rows.clear();
        if !decoder.has_more_than_fields() {
            rows.resize(keys.len() * width, 0.0);
            for (row, key) in rows.chunks_exact_mut(width).zip(&*keys) {
                decoder.place(given.folded(key.flow), row);
            }
            return Ok(());
        }
        let condition_dim = condition.len() / keys.len().max(1);
        self.noise.clear();
        self.condition.clear();
        for (key, condition) in keys.iter().zip(condition.chunks_exact(condition_dim)) {
            for attempt in 0..CANDIDATES as u32 {
                self.push_noise(key.flow, attempt);
                self.condition.extend_from_slice(condition);
            }
        }
        let count = keys.len() * CANDIDATES;
        timed(Stage::Attributes, || {
            networks.attributes(count, &self.noise, &self.condition, &mut self.rows)
        })?;
        for (key, candidates) in keys.iter().zip(self.rows.chunks_exact_mut(CANDIDATES * width)) {
            let folded = given.folded(key.flow);
            let mut nearest = (f32::INFINITY, 0);
            for (index, row) in candidates.chunks_exact_mut(width).enumerate() {
                decoder.make_discrete(row);
                let distance = decoder.distance(folded, row);
                if distance < nearest.0 {
                    nearest = (distance, index);
                }
            }
            let row = &mut candidates[nearest.1 * width..][..width];
            decoder.place(folded, row);
            rows.extend_from_slice(row);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
