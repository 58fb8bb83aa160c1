//! How the attributes of a run's flows come to be.

use std::sync::Arc;

use ns_model_format::Schema;
use ns_model_format::autoregressive::Autoregressive;

use crate::autoregressive::{Rule, Wishes, forced_places};
use crate::error::RuntimeError;
use crate::form::Form;
use crate::generate::GenerateOptions;
use crate::given::GivenFlows;
use crate::select::Selection;

/// Drafts that are taken or not, at most.
const SINGLES: u32 = 255;
/// Drafts of which one is taken.
const EACH: u32 = 64;
/// Times that a flow is drawn, without other conditions, until it is of one IP version.
const DRAWS_OF_ONE_VERSION: u32 = 256;
/// Drafts of a flow of which some attributes are given.
const GIVEN_DRAFTS: u32 = 32;

/// How the attributes of flows come to be.
#[derive(Clone, Debug)]
pub(super) enum Means {
    /// As the model draws them.
    Free,
    /// As the model draws them, again and again until they meet the conditions.
    Rejection,
    /// As the model draws them given the conditions.
    Wished(Wished),
    /// As they are given: all of them, by the flow most like it.
    Like(Arc<GivenFlows>),
    /// As they are given, and the others as the model draws them given those.
    Given(Arc<GivenFlows>, Wished),
}

/// How the attributes of flows are drawn given some.
#[derive(Clone, Debug)]
pub(super) struct Wished {
    pub(super) wishes: Wishes,
    /// So many drafts are taken each with the probability of its wishes, which is exact.
    pub(super) singles: u32,
    /// Then so many together, and one of them.
    pub(super) each: u32,
}

/// What one try of a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Try {
    /// Drafts, each with noise of its own.
    pub(super) drafts: u32,
    pub(super) rule: Rule,
}

/// What a run's options say of attributes, checked; every worker draws by it.
#[derive(Clone, Debug)]
pub(crate) struct DrawPlan {
    pub(super) means: Means,
    pub(crate) selection: Arc<Selection>,
}

impl DrawPlan {
    /// `model` is that of the bundle, if it is autoregressive.
    ///
    /// # Errors
    /// Conditions that cannot be met; given attributes of another bundle, or
    /// together with conditions on them.
    pub(crate) fn new(
        schema: &Schema,
        model: Option<&Autoregressive>,
        options: &GenerateOptions,
    ) -> Result<Self, RuntimeError> {
        let selection = Selection::new(schema, &options.conditions, options.condition_tries)?;
        let means = match (&options.attributes, model) {
            (None, _) if !selection.is_on_attributes() => Means::Free,
            (None, None) => Means::Rejection,
            (None, Some(model)) => {
                let wishes = Wishes::new(model, schema, selection.on_attributes())?;
                Means::Wished(Wished { wishes, singles: SINGLES, each: EACH })
            }
            (Some(given), _) => {
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
                match (given.is_tokens(), model) {
                    (true, Some(model)) => {
                        let wishes = Wishes::given(model, given.is_given());
                        // Without any there is nothing to choose by.
                        let each = if wishes.last() > 0 { GIVEN_DRAFTS } else { 1 };
                        Means::Given(given.clone(), Wished { wishes, singles: 0, each })
                    }
                    (false, None) => Means::Like(given.clone()),
                    _ => {
                        let what = "giving attributes that are all tokens to such a model";
                        return Err(RuntimeError::Unsupported { what: what.to_owned() });
                    }
                }
            }
        };
        Ok(DrawPlan { means, selection: Arc::new(selection) })
    }

    /// Whether what a flow becomes depends on those before it, so that one draws
    /// for all workers: where tokens are drawn, or the bundle says so, no two flows are to be alike.
    pub(crate) fn is_in_common(&self, schema: &Schema, forms: &[Form]) -> bool {
        let fields = forms.first().and_then(Form::tokens).map(|model| forced_places(model).len());
        let is_given = match &self.means {
            Means::Like(_) => true,
            Means::Given(given, _) => given.are_all_given(),
            _ => false,
        };
        fields.map_or(schema.distinct.is_some(), |fields| fields > 0) && !is_given
    }

    /// The flows given, if they are.
    pub(crate) fn given(&self) -> Option<&Arc<GivenFlows>> {
        match &self.means {
            Means::Like(given) | Means::Given(given, _) => Some(given),
            _ => None,
        }
    }

    /// How attributes are drawn given some.
    pub(super) fn wished(&self) -> Option<&Wished> {
        match &self.means {
            Means::Wished(wished) | Means::Given(_, wished) => Some(wished),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn wishes(&self) -> Option<&Wishes> {
        self.wished().map(|wished| &wished.wishes)
    }

    /// What a try is that begins with draft number `draft` of a flow.
    pub(super) fn try_at(&self, draft: u32) -> Try {
        match self.wished() {
            None => Try { drafts: 1, rule: Rule::All },
            Some(wished) if draft < wished.singles => Try { drafts: 1, rule: Rule::Accept },
            Some(wished) if wished.wishes.last() == 0 => Try { drafts: 1, rule: Rule::All },
            Some(wished) => Try { drafts: wished.each, rule: Rule::Choose },
        }
    }

    /// How many tries of one kind there are from draft number `draft` on; none, if one is
    /// most likely enough.
    pub(super) fn tries_left(&self, draft: u32) -> Option<u32> {
        match (self.wished(), self.try_at(draft).rule) {
            (Some(wished), Rule::Accept) => Some(wished.singles - draft),
            (_, Rule::Choose) => None,
            _ => Some(self.most_drafts().0.saturating_sub(draft).max(1)),
        }
    }

    /// Drafts of a flow after which it is given up, or taken as it is; whether it is given up.
    pub(super) fn most_drafts(&self) -> (u32, bool) {
        match &self.means {
            Means::Rejection => (self.selection.tries(), true),
            // One try of several at least.
            Means::Wished(wished) => {
                (self.selection.tries().max(wished.singles + wished.each), true)
            }
            Means::Given(given, wished) if given.are_all_given() => (wished.each, false),
            _ => (DRAWS_OF_ONE_VERSION, false),
        }
    }
}
