//! Several drafts of a flow, and which of them it becomes.
//!
//! What a draft's variables before a wished one are was drawn without knowing of the wish.
//! So a draft weighs what its wishes are likely, given what was drawn before each: either
//! it is taken with that probability, which is exact, as drawing until all wishes are met
//! is (von Neumann, *Various techniques used in connection with random digits*, 1951); or
//! of several drafts one is taken in proportion to the weights (sampling importance
//! resampling: Rubin, 1987; Smith and Gelfand, *Bayesian statistics without tears*, The
//! American Statistician 46, 1992), which is exact as there are ever more. Where few of them
//! carry the weight before the last wish, they take the others' places (Gordon, Salmond
//! and Smith, *Novel approach to nonlinear/non-Gaussian Bayesian state estimation*, 1993).

use super::wish::Wishes;

/// Flows to draw by way of drafts.
#[derive(Clone, Copy, Debug)]
pub struct Drafts<'a> {
    /// Drafts of each flow.
    pub(crate) each: usize,
    /// `[flows x each, Z]`. Number 0 of a draft's is not for a variable, and decides.
    pub(crate) noise: &'a [f32],
    /// `[flows, C]`.
    pub(crate) condition: &'a [f32],
    pub(crate) wishes: &'a Wishes,
    pub(crate) rule: Rule,
}

/// Which drafts become flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// All: there are no wishes, and one draft of each flow.
    All,
    /// One draft of each flow, with the probability of the wishes.
    Accept,
    /// One of each flow's, in proportion to the weights.
    Choose,
}

/// Rows of drafts, and their weights.
pub(super) struct Weighed<'a> {
    pub(super) width: usize,
    /// Drafts of each flow.
    pub(super) each: usize,
    pub(super) rows: &'a mut Vec<f32>,
    /// Logarithms of the weights.
    pub(super) logs: &'a mut Vec<f64>,
    /// Whose noise each row goes on with.
    pub(super) sources: &'a mut Vec<u32>,
}

impl Weighed<'_> {
    /// Ends drafts with the probability that their wishes were not, so far.
    pub(super) fn accept(&mut self, noise: &[f32]) {
        for (log, noise) in self.logs.iter_mut().zip(noise.chunks_exact(self.width)) {
            if *log < f64::from(noise[0]).ln() {
                *log = f64::NEG_INFINITY;
            }
        }
    }

    /// Keeps one draft of each flow, which weighs what they do on average.
    pub(super) fn choose(&mut self, stage: usize, noise: &[f32]) {
        let Weighed { width, each, .. } = *self;
        let flows = self.logs.len() / each;
        for flow in 0..flows {
            let drafts = flow * each..(flow + 1) * each;
            let Weights { weights, total, log_mean } = Weights::of(&self.logs[drafts.clone()]);
            let target = total * f64::from(noise[(drafts.start + stage % each) * width]);
            let mut below = 0.0;
            let mut chosen = 0;
            for (at, &weight) in weights.iter().enumerate() {
                if weight > 0.0 {
                    chosen = at;
                }
                below += weight;
                if below > target {
                    break;
                }
            }
            let from = drafts.start + chosen;
            self.rows.copy_within(from * width..(from + 1) * width, flow * width);
            self.logs[flow] = log_mean;
            self.sources[flow] = self.sources[from];
        }
        self.rows.truncate(flows * width);
        self.logs.truncate(flows);
        self.sources.truncate(flows);
        self.each = 1;
    }

    /// Gives places of drafts that weigh little to those that weigh much, where these are few.
    pub(super) fn resample(&mut self, stage: usize, noise: &[f32]) {
        let Weighed { width, each, .. } = *self;
        let mut before = Vec::new();
        for flow in 0..self.logs.len() / each {
            let first = flow * each;
            let Weights { weights, total, log_mean } = Weights::of(&self.logs[first..first + each]);
            let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
            if total == 0.0 || total * total > 0.5 * each as f64 * squares {
                continue;
            }
            before.clear();
            before.extend_from_slice(&self.rows[first * width..(first + each) * width]);
            let start = f64::from(noise[(first + stage % each) * width]);
            let (mut at, mut below) = (0, weights[0]);
            for place in 0..each {
                let target = (place as f64 + start) / each as f64 * total;
                while below <= target && at + 1 < each {
                    at += 1;
                    below += weights[at];
                }
                let row = (first + place) * width;
                self.rows[row..row + width].copy_from_slice(&before[at * width..][..width]);
            }
            self.logs[first..first + each].fill(log_mean);
        }
    }
}

/// Weights of a flow's drafts, the largest 1.
struct Weights {
    weights: Vec<f64>,
    total: f64,
    log_mean: f64,
}

impl Weights {
    fn of(logs: &[f64]) -> Weights {
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if most == f64::NEG_INFINITY {
            return Weights { weights: vec![0.0; logs.len()], total: 0.0, log_mean: most };
        }
        let weights: Vec<f64> = logs.iter().map(|log| (log - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        Weights { total, log_mean: most + (total / logs.len() as f64).ln(), weights }
    }
}
