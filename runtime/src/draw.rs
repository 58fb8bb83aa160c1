//! Where flows' attributes come from.
//!
//! The seam for conditions: [`Means`] says how they are met. A model class that
//! can draw attributes given some of them is one more way here.

mod distinct;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ns_model_format::Schema;
use ns_model_format::Value;
use ns_model_format::autoregressive::{Autoregressive, Says, Variable};
use ns_model_format::random::{Purpose, Stream};

use crate::autoregressive::forced_places;
use crate::counters::Counters;
use crate::decode::AttributeDecoder;
use crate::error::RuntimeError;
use crate::form::{Form, Noise, NoiseKind};
use crate::generate::GenerateOptions;
use crate::given::GivenFlows;
use crate::networks::Networks;
use crate::select::Selection;
use crate::stages::{Stage, timed};
use crate::strata::Strata;
use crate::timeline::Key;
pub(crate) use distinct::Distinct;

/// Rows drawn at once while few flows are left to match.
const MOST_ROWS: usize = 256;
/// Draws among which a given flow finds what was not given with it.
const CANDIDATES: usize = 16;
/// Times that a flow is drawn, without other conditions, until it is of one IP version.
const DRAWS_OF_ONE_VERSION: u32 = 256;
/// Times that a flow is drawn again because another has its attributes.
const REDRAWS: u32 = 12;
/// The first of them draw only the field that is drawn last.
const OF_LAST_FIELD: u32 = 8;

/// How the attributes of flows come to be.
#[derive(Clone, Debug)]
enum Means {
    /// As the model draws them.
    Free,
    /// As the model draws them, again and again until they meet the conditions.
    Rejection,
    /// As they are given.
    Given(Arc<GivenFlows>),
}

/// What a run's options say of attributes, checked; every worker draws by it.
#[derive(Clone, Debug)]
pub(crate) struct DrawPlan {
    means: Means,
    pub(crate) selection: Arc<Selection>,
}

impl DrawPlan {
    /// # Errors
    /// Conditions that cannot be met; given attributes of another bundle, or
    /// together with conditions on them.
    pub(crate) fn new(schema: &Schema, options: &GenerateOptions) -> Result<Self, RuntimeError> {
        let selection = Selection::new(schema, &options.conditions, options.condition_tries)?;
        let means = match &options.attributes {
            None if selection.is_on_attributes() => Means::Rejection,
            None => Means::Free,
            Some(given) => {
                let refuse = |found: &str, expected| {
                    let found = found.to_owned();
                    Err(RuntimeError::Option { option: "attributes", found, expected })
                };
                if selection.is_on_attributes() {
                    let expected = "given attributes or conditions on them, not both";
                    return refuse("given with conditions on attributes", expected);
                }
                if !given.is_of(schema) {
                    return refuse("of another bundle", "attributes read for this bundle");
                }
                Means::Given(Arc::clone(given))
            }
        };
        Ok(DrawPlan { means, selection: Arc::new(selection) })
    }

    /// Checks that given flows are in the form that the networks take.
    pub(crate) fn check_form(&self, forms: &[Form]) -> Result<(), RuntimeError> {
        let tokens = forms.first().and_then(Form::tokens).is_some();
        match self.given() {
            Some(given) if given.is_tokens() != tokens => Err(RuntimeError::Unsupported {
                what: "giving attributes that are all tokens to such a model".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether what a flow becomes depends on those before it, so that one draws
    /// for all workers: where tokens are drawn, or the bundle says so, no two flows are to be alike.
    pub(crate) fn is_in_common(&self, schema: &Schema, forms: &[Form]) -> bool {
        let fields = forms.first().and_then(Form::tokens).map(|model| forced_places(model).len());
        let is_distinct = fields.map_or(schema.distinct.is_some(), |fields| fields > 0);
        is_distinct && !matches!(self.means, Means::Given(_))
    }

    /// The flows given, if they are.
    pub(crate) fn given(&self) -> Option<&Arc<GivenFlows>> {
        match &self.means {
            Means::Given(given) => Some(given),
            _ => None,
        }
    }
}

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
    /// Which try was kept of each of the flows drawn.
    attempts: Vec<u32>,
    counters: Arc<Counters>,
    noise: Vec<f32>,
    condition: Vec<f32>,
    rows: Vec<f32>,
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
        match self.plan.means.clone() {
            Means::Free if !self.plan.selection.is_on_versions() => {
                self.draw_free(networks, decoder, wanted)
            }
            Means::Free | Means::Rejection => self.draw_matching(networks, decoder, wanted),
            Means::Given(_) if self.forced > 0 => self.draw_free(networks, decoder, wanted),
            Means::Given(given) => self.draw_given(networks, decoder, wanted, &given),
        }
    }

    /// The values of a flow's attributes where they are given, since not every
    /// number survives its encoding to the last digit.
    pub(crate) fn given_values(&self, flow: u64) -> Option<Vec<Value>> {
        self.plan.given().map(|given| given.values(flow).to_vec())
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

    /// Try `k` of a flow has noise of its own, so neither the company nor how
    /// many tries are made at once changes which one is the first to match.
    fn draw_matching<N: Networks>(
        &mut self,
        networks: &mut N,
        decoder: &mut AttributeDecoder,
        Wanted { keys, condition, rows }: Wanted<'_>,
    ) -> Result<(), RuntimeError> {
        let selection = Arc::clone(&self.plan.selection);
        let chooses = matches!(self.plan.means, Means::Rejection);
        let most_tries = if chooses { selection.tries() } else { DRAWS_OF_ONE_VERSION };
        let condition_dim = condition.len() / keys.len().max(1);
        let mut accepted: Vec<Option<Box<[f32]>>> = vec![None; keys.len()];
        let mut pending: Vec<usize> = (0..keys.len()).collect();
        let (mut tried, mut draws, mut mixed, mut each) = (0, 0, 0, 1);
        while !pending.is_empty() && tried < most_tries {
            self.noise.clear();
            self.condition.clear();
            for &flow in &pending {
                for attempt in tried..tried + each {
                    self.push_noise(keys[flow].flow, attempt);
                    let from = flow * condition_dim;
                    self.condition.extend_from_slice(&condition[from..from + condition_dim]);
                }
            }
            let count = pending.len() * each as usize;
            timed(Stage::Attributes, || {
                networks.attributes(count, &self.noise, &self.condition, &mut self.rows)
            })?;
            let width = self.rows.len() / count;
            let mut flows = self.rows.chunks_exact_mut(width * each as usize);
            pending.retain(|&flow| {
                let tries = flows.next().unwrap_or_default().chunks_exact_mut(width);
                for (attempt, row) in (tried..).zip(tries) {
                    draws += 1;
                    decoder.make_discrete(row);
                    let values = decoder.decode(row);
                    let is_one = selection.is_of_one_version(&values);
                    mixed += u64::from(!is_one);
                    let is_wanted =
                        is_one && selection.wants_flow(keys[flow].flow, attempt, &values);
                    // Without conditions no flow is left out.
                    if is_wanted || (!chooses && attempt + 1 == most_tries) {
                        self.attempts[flow] = attempt;
                        accepted[flow] = Some((&*row).into());
                        return false;
                    }
                }
                true
            });
            tried += each;
            // Few at first: where most flows match, more would be for nothing.
            let most = (MOST_ROWS / pending.len().max(1)).max(1) as u32;
            each = (each * 2).min(most).min(most_tries.saturating_sub(tried).max(1));
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

    /// Draws those again whose attributes an earlier flow has, up to [`REDRAWS`] times
    /// each, from the try on that was kept. The company counts here.
    pub(crate) fn make_distinct<N: Networks>(
        &mut self,
        networks: &mut N,
        decoder: &mut AttributeDecoder,
        Wanted { keys, condition, rows }: Wanted<'_>,
        distinct: &mut Distinct,
    ) -> Result<(), RuntimeError> {
        let Some(first) = keys.first() else { return Ok(()) };
        distinct.forget(first.time_ns);
        let selection = Arc::clone(&self.plan.selection);
        let chooses = matches!(self.plan.means, Means::Rejection);
        let (most_tries, most_each) =
            if chooses { (selection.tries(), CANDIDATES as u32) } else { (1 + REDRAWS, 1) };
        let (width, condition_dim) = (rows.len() / keys.len(), condition.len() / keys.len());
        let hash =
            |decoder: &mut AttributeDecoder, row: &[f32]| distinct::hash(&decoder.decode(row));
        let mut hashes: Vec<u64> = rows.chunks_exact(width).map(|row| hash(decoder, row)).collect();
        let mut pending: Vec<usize> =
            (0..keys.len()).filter(|&flow| !distinct.claim(hashes[flow])).collect();
        let mut redraws = vec![0; keys.len()];
        let (mut draws, mut mixed) = (0, 0);
        let has_last_field = !self.last_field.is_empty();
        let kept = self.attempts.clone();
        // Tries that conditions took count; those for one IP version do not.
        let last_try = |flow: usize| if chooses { most_tries } else { kept[flow] + most_tries };
        loop {
            pending.retain(|&flow| self.attempts[flow] + 1 < last_try(flow));
            if pending.is_empty() {
                break;
            }
            let each = (MOST_ROWS / pending.len()).clamp(1, most_each as usize) as u32;
            self.noise.clear();
            self.condition.clear();
            for &flow in &pending {
                for attempt in self.attempts[flow] + 1..=self.attempts[flow] + each {
                    // All else of the flow stays as it was drawn: flows that are alike are
                    // of frequent kinds, and would become rarer if all were drawn again.
                    if !chooses && has_last_field && redraws[flow] < OF_LAST_FIELD {
                        self.push_noise_of_last_field(keys[flow].flow, kept[flow], attempt);
                    } else {
                        self.push_noise(keys[flow].flow, attempt);
                    }
                    let from = flow * condition_dim;
                    self.condition.extend_from_slice(&condition[from..from + condition_dim]);
                }
            }
            let count = pending.len() * each as usize;
            timed(Stage::Again, || {
                networks.attributes(count, &self.noise, &self.condition, &mut self.rows)
            })?;
            let mut flows = self.rows.chunks_exact_mut(width * each as usize);
            let attempts = &mut self.attempts;
            pending.retain(|&flow| {
                for row in flows.next().unwrap_or_default().chunks_exact_mut(width) {
                    decoder.make_discrete(row);
                    attempts[flow] += 1;
                    draws += 1;
                    if attempts[flow] >= last_try(flow) {
                        return false;
                    }
                    // Noise has no part that is a field's: its columns are taken over.
                    if !chooses
                        && !has_last_field
                        && attempts[flow] <= kept[flow] + OF_LAST_FIELD
                        && !decoder.keep_but_told(&rows[flow * width..][..width], row)
                    {
                        continue;
                    }
                    let values = decoder.decode(row);
                    if !selection.is_of_one_version(&values) {
                        mixed += 1;
                        continue;
                    }
                    if !selection.wants_flow(keys[flow].flow, attempts[flow], &values) {
                        continue;
                    }
                    rows[flow * width..][..width].copy_from_slice(row);
                    hashes[flow] = distinct::hash(&values);
                    redraws[flow] += 1;
                    if distinct.claim(hashes[flow]) || redraws[flow] == REDRAWS {
                        return false;
                    }
                }
                true
            });
        }
        self.counters.mixed_versions.fetch_add(mixed, Relaxed);
        if chooses {
            self.counters.draws.fetch_add(draws, Relaxed);
        }
        for (key, hash) in keys.iter().zip(hashes) {
            distinct.remember(key.time_ns, hash);
        }
        Ok(())
    }

    /// Whether a flow goes on after its first segment, and its own scales,
    /// cannot be given. The model draws some flows at the same start, and the one
    /// most like the given flow lends it these.
    fn draw_given<N: Networks>(
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
