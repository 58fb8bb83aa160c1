//! Where flows' attributes come from.
//!
//! The seam for conditions: [`Means`] says how they are met. A model class that
//! can draw attributes given some of them is one more way here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ns_model_format::Schema;
use ns_model_format::Value;
use ns_model_format::manifest::Chunk;
use ns_model_format::random::{Purpose, Stream};

use crate::counters::Counters;
use crate::decode::AttributeDecoder;
use crate::error::RuntimeError;
use crate::generate::GenerateOptions;
use crate::given::GivenFlows;
use crate::networks::Networks;
use crate::rolling::blocks;
use crate::select::Selection;
use crate::timeline::Key;

/// Rows drawn at once while few flows are left to match.
const MOST_ROWS: usize = 256;
/// Draws among which a given flow finds what was not given with it.
const CANDIDATES: usize = 16;

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
    noise_dims: Vec<usize>,
    noise_dim: usize,
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

impl Drawer {
    pub(crate) fn new(
        plan: DrawPlan,
        seed: u64,
        chunks: &[Chunk],
        counters: Arc<Counters>,
    ) -> Drawer {
        Drawer {
            plan,
            seed,
            noise_dims: chunks.iter().map(|chunk| chunk.attributes.noise.dim).collect(),
            noise_dim: 0,
            counters,
            noise: Vec::new(),
            condition: Vec::new(),
            rows: Vec::new(),
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
        self.noise_dim = self.noise_dims[chunk];
        if wanted.keys.is_empty() {
            return Ok(());
        }
        match self.plan.means.clone() {
            Means::Free => self.draw_free(networks, decoder, wanted),
            Means::Rejection => self.draw_matching(networks, decoder, wanted),
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
        self.noise.resize(from + self.noise_dim, 0.0);
        let block = attempt.wrapping_mul(blocks(self.noise_dim));
        let mut stream = Stream::at(self.seed, Purpose::Attributes, flow, block);
        stream.fill_normal(&mut self.noise[from..]);
    }

    fn draw_free<N: Networks>(
        &mut self,
        networks: &mut N,
        decoder: &mut AttributeDecoder,
        Wanted { keys, condition, rows }: Wanted<'_>,
    ) -> Result<(), RuntimeError> {
        self.noise.clear();
        keys.iter().for_each(|key| self.push_noise(key.flow, 0));
        networks.attributes(keys.len(), &self.noise, condition, rows)?;
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
        let condition_dim = condition.len() / keys.len().max(1);
        let mut accepted: Vec<Option<Box<[f32]>>> = vec![None; keys.len()];
        let mut pending: Vec<usize> = (0..keys.len()).collect();
        let (mut tried, mut draws, mut each) = (0, 0, 1);
        while !pending.is_empty() && tried < selection.tries() {
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
            networks.attributes(count, &self.noise, &self.condition, &mut self.rows)?;
            let width = self.rows.len() / count;
            let mut flows = self.rows.chunks_exact_mut(width * each as usize);
            pending.retain(|&flow| {
                let tries = flows.next().unwrap_or_default().chunks_exact_mut(width);
                for (attempt, row) in (tried..).zip(tries) {
                    draws += 1;
                    decoder.make_discrete(row);
                    let values = decoder.decode(row);
                    if selection.wants_flow(keys[flow].flow, attempt, &values) {
                        accepted[flow] = Some((&*row).into());
                        return false;
                    }
                }
                true
            });
            tried += each;
            // Few at first: where most flows match, more would be for nothing.
            let most = (MOST_ROWS / pending.len().max(1)).max(1) as u32;
            each = (each * 2).min(most).min(selection.tries().saturating_sub(tried).max(1));
        }
        let given_up = pending.len() as u64;
        self.counters.draws.fetch_add(draws, Relaxed);
        self.counters.flows_drawn.fetch_add(keys.len() as u64 - given_up, Relaxed);
        self.counters.flows_given_up.fetch_add(given_up, Relaxed);
        for flow in pending {
            selection.flow_given_up(keys[flow].flow)?;
        }
        rows.clear();
        let mut kept = 0;
        for (flow, row) in accepted.iter().enumerate() {
            let Some(row) = row else { continue };
            rows.extend_from_slice(row);
            keys[kept] = keys[flow];
            let from = flow * condition_dim;
            condition.copy_within(from..from + condition_dim, kept * condition_dim);
            kept += 1;
        }
        keys.truncate(kept);
        condition.truncate(kept * condition_dim);
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
        networks.attributes(count, &self.noise, &self.condition, &mut self.rows)?;
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
