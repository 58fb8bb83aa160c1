//! What an autoregressive model is made of, beside its graphs: which variables it
//! draws, in which order, and what they say.
//!
//! A flow is a chain of variables, each a token drawn given those before it: first what
//! is fixed in the flow, and a plan (how many records, how long, how large), then record
//! by record a few tokens more, given what an LSTM has seen of the flow, how many records
//! are left, and how much of the planned time.

use serde::{Deserialize, Deserializer, Serialize};

use crate::codec::{Codec, Encoder, TokensCodec};
use crate::schema::Schema;

/// Rows of the tables for how many records are left, and have been.
pub const COUNT_BUCKETS: usize = 32;
/// Rows of the tables for how much time a gap may take.
pub const BUDGET_BUCKETS: usize = 64;
/// Which kinds of combinations a flow has had is kept as bits of a float32.
pub const MOST_SUPPORT: usize = 24;
/// A variable has at most so many tokens, and a model so many variables.
const MOST: usize = 1 << 14;
/// Most sets of a support, and most combinations whose kinds it tells.
const MOST_SETS: usize = 1 << 10;
const MOST_KINDS: usize = 1 << 10;
/// Combinations that lists may hold, each list taken with each other.
const MOST_LISTED: usize = 1 << 22;
/// Most combinations of all lists of what comes later, taken with each set of a support.
const MOST_STEPS: usize = 1 << 26;
/// Most steps from the value before that a head says.
pub const MOST_FIELD_STEPS: usize = 64;
/// How long one is at most, in ticks.
pub const LONGEST_STEP: u32 = 1 << 20;
/// Most pairs of tokens that are said not to go together, for two variables.
pub const MOST_ABSENT: usize = 1 << 12;
/// A logit of no more than this is of a token that no flow had: it may be given, but is not
/// what is left where others are not drawn.
pub const UNSEEN: f32 = -50.0;
/// Most contexts of a variable.
pub const MOST_CONTEXTS: usize = 8;
/// Most tokens of a context, over all its keys.
pub const MOST_EVIDENCE: usize = 1 << 14;

/// The bucket of a count: each up to 15, then two an octave.
#[must_use]
pub fn count_bucket(count: u32) -> usize {
    if count < 16 {
        return count as usize;
    }
    (16 + half_octaves(f64::from(count) / 16.0)).min(COUNT_BUCKETS - 1)
}

/// The bucket of the mean gap that is left, in microseconds: two an octave; the last
/// where no gap is left.
#[must_use]
pub fn budget_bucket(left_us: f64, gaps: u32) -> usize {
    if gaps == 0 {
        return BUDGET_BUCKETS - 1;
    }
    let mean = (left_us / f64::from(gaps)).max(1.0);
    half_octaves(mean).min(BUDGET_BUCKETS - 2)
}

/// Steps; earlier files say whether there is one of nothing.
fn steps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Repeats(bool),
        Steps(Vec<i32>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::Repeats(repeats) => {
            if repeats {
                vec![0]
            } else {
                Vec::new()
            }
        }
        Written::Steps(steps) => steps,
    })
}

/// Half octaves from 1 to a number of at least 1, rounded down: the exponent of its square.
fn half_octaves(number: f64) -> usize {
    let exponent = (number * number).to_bits() >> 52;
    (exponent as usize).saturating_sub(1023)
}

/// The model's variables and graphs. Every graph takes and gives `[batch, dim]` of float32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Autoregressive {
    /// The safetensors file with the tables that tokens are looked up in.
    pub tables: String,
    /// Width of the attribute networks, D.
    pub units: usize,
    /// Width of what a flow's variables say to its records, C.
    pub context: usize,
    /// Width of the LSTM, H.
    pub hidden: usize,
    /// Width of a head, E.
    pub head: usize,
    /// The chain of a flow; the first is its start.
    pub attributes: Vec<Variable>,
    /// `context [C]` to `gates [4 H + heads x E]`, once a flow.
    pub context_file: String,
    /// `x [4 H]`, `h [H]`, `c [H]` to `heads [heads x E]`, `h_next`, `c_next`.
    pub step_file: String,
    /// What is drawn for a record, in order; the last is the gap before it.
    pub heads: Vec<Head>,
}

/// Something that is drawn once a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// For people.
    pub name: String,
    /// Tokens. One more says that the variable does not apply.
    pub size: usize,
    /// What the tokens say.
    pub says: Says,
    /// When it applies; always, if this is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applies: Option<Applies>,
    /// What tells its token, if something may; it is drawn where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
    /// `sum [D]` to `logits [size]`; the start, which is given, has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The variables before it that it depends on: table `attributes.I.J` of each,
    /// `[size + 1, D]`, is added up.
    pub parents: Vec<usize>,
    /// What it is not, given one of its parents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
    /// One or two of its parents each, ascending, that tell what flows with the same tokens
    /// had: tables `evidence.I.N.*` say what is added to the logits; at most
    /// [`MOST_CONTEXTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<Vec<usize>>,
}

impl Variable {
    /// The key of a context's tokens, each at most its variable's size.
    #[must_use]
    pub fn key(tokens: impl Iterator<Item = (u32, usize)>) -> u32 {
        tokens.fold(0, |key, (token, size)| key * (size as u32 + 1) + token)
    }
}

/// Tokens that are not drawn given a token that was drawn before: although either is
/// frequent enough, they were never seen together. A list that leaves none does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absent {
    /// What was drawn before: one of a variable's parents, or an earlier head.
    pub before: usize,
    /// Its token and one that does not go with it, ascending, at most [`MOST_ABSENT`].
    pub pairs: Vec<[u32; 2]>,
}

impl Absent {
    /// For each token before, of so many, those that do not go with it.
    #[must_use]
    pub fn lists(&self, size: usize) -> Vec<Vec<u32>> {
        let mut lists = vec![Vec::new(); size];
        for &[before, token] in &self.pairs {
            if let Some(list) = lists.get_mut(before as usize) {
                list.push(token);
            }
        }
        lists
    }

    /// Whether the tokens are some of so many.
    fn fits(&self, sizes: [usize; 2]) -> bool {
        let known = |pair: &[u32; 2]| pair.iter().zip(sizes).all(|(&t, size)| (t as usize) < size);
        (1..=MOST_ABSENT).contains(&self.pairs.len())
            && self.pairs.iter().all(known)
            && self.pairs.is_sorted_by(|one, next| one < next)
    }
}

/// When a variable applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applies {
    /// An earlier variable.
    pub variable: usize,
    /// Its token.
    pub token: u32,
    /// Whether it must be that token, or must not.
    pub equal: bool,
}

/// A variable of pairs that tells a field's token, unless it is its last token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// An earlier variable, of [`Says::Pair`].
    pub variable: usize,
    /// Which of a pair's tokens: 0 or 1.
    pub place: usize,
}

/// What a variable's tokens say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum Says {
    /// Where in the span the flow starts: bin edges, shares of the span.
    Start {
        /// Ascending, one more than tokens.
        edges: Vec<f32>,
    },
    /// An attribute field, or one of its octets.
    Field {
        /// The field.
        field: usize,
        /// 0, or the octet counted from 1.
        place: usize,
    },
    /// Two attribute fields, as one of the pairs of tokens that were often seen together; the
    /// last token says that they are none of these.
    Pair {
        /// The fields.
        fields: [usize; 2],
        /// Their tokens, ascending.
        pairs: Vec<[u32; 2]>,
    },
    /// Which kinds of a joint head's combinations the flow's records have, all of them and no
    /// others; the last token leaves it open.
    Support {
        /// The head.
        head: usize,
        /// The kind of each combination.
        kinds: Vec<u32>,
        /// Sets of kinds, ascending, at most [`MOST_SUPPORT`] each.
        sets: Vec<Vec<u32>>,
    },
    /// How often one of a joint head's combinations that begin anew comes after one that does
    /// not: a connection on the ports of one that is over. The last token says so often or more.
    Again {
        /// The head.
        head: usize,
        /// The number that the last token says.
        most: usize,
    },
    /// How many records the flow has.
    Count {
        /// How counts are tokens.
        tokens: TokensCodec,
    },
    /// Microseconds from its first record to its last.
    Duration {
        /// How durations are tokens.
        tokens: TokensCodec,
    },
    /// The mean of a measurement over its records.
    Mean {
        /// The measurement field.
        measurement: usize,
        /// How means are tokens.
        tokens: TokensCodec,
    },
    /// A measurement that does not change in the flow, or in one direction of it. Where
    /// there are no such records, the last token says so.
    Constant {
        /// The measurement field.
        measurement: usize,
        /// Records of which direction, if the flow has two.
        direction: Option<u8>,
    },
}

/// Something that is drawn for every record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// For people.
    pub name: String,
    /// Tokens.
    pub size: usize,
    /// What they say.
    pub says: RecordSays,
    /// `u [E]` to `logits [size]`.
    pub file: String,
    /// What they do not say, given those of an earlier head.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
}

/// What a head's tokens say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum RecordSays {
    /// Several measurement fields that take few combinations of values.
    Joint {
        /// The fields.
        fields: Vec<usize>,
        /// Their tokens, combination by combination.
        combinations: Vec<Vec<u32>>,
        /// The attribute variable whose tokens say which combinations there are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        given: Option<usize>,
        /// For each token of that variable, the combinations that a first record has.
        first: Vec<Vec<u32>>,
        /// And that the others have.
        later: Vec<Vec<u32>>,
        /// For each combination, those that the record after one of it has; none: it is
        /// only ever a flow's last. Where no combination is left by all lists, this one
        /// does not count.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<Vec<u32>>,
        /// The same of any record after one of it, the next or a later one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        since: Vec<Vec<u32>>,
        /// Those that begin anew: what came before one of them does not count in `since`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        begins: Vec<u32>,
        /// For each combination, how many records at most come after one of it; `u32::MAX`: it
        /// says nothing of how near a flow's end is.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        room: Vec<u32>,
    },
    /// A measurement field.
    Field {
        /// The field.
        field: usize,
        /// What tokens after the measurement's own say, one each: the value is that of the
        /// record before and so many ticks more ([`crate::Field::tick`]), within the range of
        /// all values. Ascending; at most [`MOST_FIELD_STEPS`].
        #[serde(
            default,
            alias = "repeats",
            deserialize_with = "steps",
            skip_serializing_if = "Vec::is_empty"
        )]
        steps: Vec<i32>,
    },
    /// Microseconds since the record before; a flow's first has none.
    Gap {
        /// How gaps are tokens.
        tokens: TokensCodec,
    },
}

impl Autoregressive {
    /// Every graph's file.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        let variables = self.attributes.iter().filter_map(|variable| variable.file.as_ref());
        let heads = self.heads.iter().map(|head| &head.file);
        variables.chain(heads).chain([&self.context_file, &self.step_file])
    }

    /// The measurements that are constant in a flow: field, direction, variable.
    pub fn constants(&self) -> impl Iterator<Item = (usize, Option<u8>, usize)> {
        self.attributes.iter().enumerate().filter_map(|(at, variable)| match variable.says {
            Says::Constant { measurement, direction } => Some((measurement, direction, at)),
            _ => None,
        })
    }

    /// The variable that says which combinations of a head a flow has.
    #[must_use]
    pub fn support(&self, wanted: usize) -> Option<usize> {
        let is_of = |says: &Says| matches!(says, Says::Support { head, .. } if *head == wanted);
        self.attributes.iter().position(|variable| is_of(&variable.says))
    }

    /// The variable that says how often a joint head begins anew.
    #[must_use]
    pub fn again(&self, wanted: usize) -> Option<usize> {
        let is_of = |says: &Says| matches!(says, Says::Again { head, .. } if *head == wanted);
        self.attributes.iter().position(|variable| is_of(&variable.says))
    }

    /// Checks that all parts fit one another and the schema.
    pub(crate) fn validate(&self, schema: &Schema) -> Result<(), String> {
        let widths = [self.units, self.context, self.hidden, self.head];
        if widths.iter().any(|width| !(1..=MOST).contains(width)) {
            return Err(format!("widths {widths:?}; expected 1 to {MOST}"));
        }
        if self.attributes.len() > MOST || !(1..=MOST).contains(&self.heads.len()) {
            return Err("too many variables, or none".to_owned());
        }
        let tokens = |codec: &Codec| match codec {
            Codec::Tokens(codec) => Ok(codec.sizes()),
            _ => Err("a field is not encoded as `tokens`".to_owned()),
        };
        let measurement = |field: usize| match schema.measurements.get(field) {
            Some(found) => tokens(&found.codec).map(|sizes| sizes[0]),
            None => Err("a variable is of a measurement that there is not".to_owned()),
        };
        let mut told = vec![0; schema.measurements.len()];
        let mut fields: Vec<Vec<usize>> = vec![Vec::new(); schema.attributes.len()];
        let mut counts = 0;
        let (mut has_support, mut has_again) = (false, false);
        for (at, variable) in self.attributes.iter().enumerate() {
            let fail = |reason: &str| Err(format!("variable `{}`: {reason}", variable.name));
            let size = match &variable.says {
                Says::Start { edges } => {
                    let ascending = edges.windows(2).all(|pair| pair[0] < pair[1]);
                    if at != 0 || !ascending || edges.len() < 2 {
                        return fail("a start that is not first, or without bins");
                    }
                    edges.len() - 1
                }
                Says::Field { field, place } => {
                    let Some(found) = schema.attributes.get(*field) else {
                        return fail("no such field");
                    };
                    let sizes = tokens(&found.codec)?;
                    fields[*field].push(*place);
                    sizes.get(*place).copied().unwrap_or(0)
                }
                Says::Pair { fields: [a, b], pairs } => {
                    let (Some(first), Some(second)) =
                        (schema.attributes.get(*a), schema.attributes.get(*b))
                    else {
                        return fail("no such field");
                    };
                    let sizes = [tokens(&first.codec)?[0], tokens(&second.codec)?[0]];
                    let known = |pair: &[u32; 2]| {
                        pair.iter().zip(sizes).all(|(&token, size)| (token as usize) < size)
                    };
                    if !pairs.iter().all(known) || !pairs.is_sorted_by(|one, next| one < next) {
                        return fail("pairs of tokens that there are not, or not in order");
                    }
                    pairs.len() + 1
                }
                Says::Support { head, kinds, sets } => {
                    let Some(RecordSays::Joint { combinations, since, .. }) =
                        self.heads.get(*head).map(|head| &head.says)
                    else {
                        return fail("a support of no joint head");
                    };
                    // What the runtime makes of both takes as many steps as their product.
                    let listed: usize = since.iter().map(Vec::len).sum();
                    let is_much = listed.saturating_mul(sets.len()) > MOST_STEPS;
                    if sets.len() > MOST_SETS || kinds.len() > MOST_KINDS || is_much {
                        return fail("too many sets, or kinds");
                    }
                    let known = |set: &Vec<u32>| {
                        (1..=MOST_SUPPORT).contains(&set.len())
                            && set.is_sorted_by(|one, next| one < next)
                            && set.iter().all(|kind| kinds.contains(kind))
                    };
                    if kinds.len() != combinations.len() || !sets.iter().all(known) {
                        return fail("sets of combinations that there are not");
                    }
                    if std::mem::replace(&mut has_support, true) {
                        return fail("a second support");
                    }
                    sets.len() + 1
                }
                Says::Again { head, most } => {
                    let says = self.heads.get(*head).map(|head| &head.says);
                    if !matches!(says, Some(RecordSays::Joint { .. })) {
                        return fail("beginnings of no joint head");
                    }
                    if std::mem::replace(&mut has_again, true) {
                        return fail("a second number of beginnings");
                    }
                    most.saturating_add(1)
                }
                Says::Count { tokens } | Says::Duration { tokens } => {
                    counts += usize::from(matches!(variable.says, Says::Count { .. }));
                    tokens.validate()?;
                    tokens.sizes()[0]
                }
                Says::Mean { measurement: field, tokens } => {
                    measurement(*field)?;
                    tokens.validate()?;
                    tokens.sizes()[0]
                }
                Says::Constant { measurement: field, .. } => {
                    let size = measurement(*field)?;
                    told[*field] = 1;
                    size + 1
                }
            };
            if variable.size != size || !(1..=MOST).contains(&size) {
                return fail("another number of tokens than what it says has");
            }
            if (at == 0) != variable.file.is_none() {
                return fail("the first variable, and only it, is given");
            }
            let applies = variable.applies.as_ref().map(|applies| applies.variable);
            let too_many = variable.parents.len() > at;
            if too_many
                || variable.parents.iter().copied().chain(applies).any(|before| before >= at)
            {
                return fail("it depends on what is not before it");
            }
            let absent = |absent: &Absent| {
                variable.parents.contains(&absent.before)
                    && absent.fits([self.attributes[absent.before].size, size])
            };
            let each_once = |all: &[Absent]| all.is_sorted_by(|one, next| one.before < next.before);
            if !variable.absent.iter().all(absent) || !each_once(&variable.absent) {
                return fail("it is said not to go with what it does not depend on");
            }
            let context = |of: &Vec<usize>| {
                matches!(of.len(), 1 | 2)
                    && of.is_sorted_by(|one, next| one < next)
                    && of.iter().all(|before| variable.parents.contains(before))
            };
            if variable.contexts.len() > MOST_CONTEXTS || !variable.contexts.iter().all(context) {
                return fail("contexts that are too many, or not of what it depends on");
            }
            if let Some(told) = &variable.told {
                let by = self.attributes[..at].get(told.variable).map(|by| &by.says);
                let is_of = match (by, &variable.says) {
                    (Some(Says::Pair { fields, .. }), Says::Field { field, place: 0 }) => {
                        fields.get(told.place) == Some(field)
                    }
                    _ => false,
                };
                if !is_of {
                    return fail("it is told by what is no pair of its field before it");
                }
            }
        }
        if counts != 1 || !matches!(self.attributes[0].says, Says::Start { .. }) {
            return Err("the chain needs a start and one count of records".to_owned());
        }
        for (field, places) in schema.attributes.iter().zip(&fields) {
            if !places.iter().copied().eq(0..tokens(&field.codec)?.len()) {
                return Err(format!("field `{}` is not drawn, or not in order", field.name));
            }
        }
        for (at, head) in self.heads.iter().enumerate() {
            let fail = |reason: &str| Err(format!("head `{}`: {reason}", head.name));
            let size = match &head.says {
                RecordSays::Joint {
                    fields,
                    combinations,
                    given,
                    first,
                    later,
                    after,
                    since,
                    begins,
                    room,
                } => {
                    let mut sizes = Vec::new();
                    for &field in fields {
                        sizes.push(measurement(field)?);
                        told[field] += 1;
                    }
                    let fits = |combination: &Vec<u32>| {
                        combination.len() == sizes.len()
                            && combination.iter().zip(&sizes).all(|(&t, &size)| (t as usize) < size)
                    };
                    if !combinations.iter().all(fits) {
                        return fail("a combination of tokens that there are not");
                    }
                    let rows = match given {
                        None => 1,
                        Some(variable) => match self.attributes.get(*variable) {
                            Some(variable) => variable.size + 1,
                            None => return fail("it depends on a variable that there is not"),
                        },
                    };
                    let lists = first.iter().chain(later).chain(after).chain(since).chain([begins]);
                    let known = |list: &Vec<u32>| {
                        list.is_sorted_by(|one, next| one < next)
                            && list.iter().all(|&at| (at as usize) < combinations.len())
                    };
                    // What the runtime makes of them is as large as their product.
                    let listed: usize = later.iter().map(Vec::len).sum();
                    let all = (listed + later.len()).saturating_mul(after.len().max(1));
                    if all > MOST_LISTED {
                        return fail("too many combinations");
                    }
                    let each = |lists: &Vec<Vec<u32>>| {
                        lists.is_empty() || lists.len() == combinations.len()
                    };
                    // What comes after what is kept as bits.
                    let of_each = each(after)
                        && each(since)
                        && (since.is_empty() || combinations.len() <= MOST_SETS)
                        && (room.is_empty() || room.len() == combinations.len());
                    let fit = first.len() == rows && later.len() == rows && of_each;
                    if !fit || !lists.into_iter().all(known) {
                        return fail("lists of combinations that do not fit");
                    }
                    combinations.len()
                }
                RecordSays::Field { field, steps } => {
                    let size = measurement(*field)?;
                    told[*field] += 1;
                    let far = |step: &i32| step.unsigned_abs() > LONGEST_STEP;
                    if !steps.is_sorted_by(|one, next| one < next)
                        || steps.len() > MOST_FIELD_STEPS
                        || steps.iter().any(far)
                    {
                        return fail("steps that are too many, too long or not ascending");
                    }
                    size + steps.len()
                }
                RecordSays::Gap { tokens } => {
                    if at + 1 != self.heads.len() {
                        return fail("the gap is drawn last");
                    }
                    tokens.validate()?;
                    tokens.sizes()[0]
                }
            };
            if head.size != size || !(1..=MOST).contains(&size) {
                return fail("another number of tokens than what it says has");
            }
            let absent = |absent: &Absent| {
                let before = self.heads[..at].get(absent.before);
                before.is_some_and(|before| absent.fits([before.size, size]))
            };
            let each_once = head.absent.is_sorted_by(|one, next| one.before < next.before);
            let is_field = matches!(head.says, RecordSays::Field { .. });
            if !(head.absent.iter().all(absent) && each_once)
                || !(is_field || head.absent.is_empty())
            {
                return fail("it is said not to go with what is not before it");
            }
        }
        if !matches!(self.heads[self.heads.len() - 1].says, RecordSays::Gap { .. }) {
            return Err("the last head is not the gap".to_owned());
        }
        match schema.measurements.iter().zip(&told).find(|(_, told)| **told != 1) {
            Some((field, _)) => Err(format!("field `{}` is not drawn once", field.name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_and_then_two_buckets_an_octave() {
        let buckets: Vec<usize> =
            [0, 1, 15, 16, 22, 23, 31, 32, 45, 46, 64, u32::MAX].map(count_bucket).to_vec();
        assert_eq!(buckets, [0, 1, 15, 16, 16, 17, 17, 18, 18, 19, 20, 31]);
        assert!((0..100_000).map(count_bucket).is_sorted());
    }

    #[test]
    fn what_repeats_in_an_earlier_file_is_a_step_of_nothing() {
        let read = |text: &str| serde_json::from_str::<RecordSays>(text);
        let says = |steps: &[i32]| RecordSays::Field { field: 3, steps: steps.to_vec() };
        for (text, steps) in [
            (r#"{"what":"field","field":3}"#, &[][..]),
            (r#"{"what":"field","field":3,"repeats":false}"#, &[]),
            (r#"{"what":"field","field":3,"repeats":true}"#, &[0]),
            (r#"{"what":"field","field":3,"steps":[-2,0,7]}"#, &[-2, 0, 7]),
        ] {
            assert_eq!(read(text).expect(text), says(steps));
        }
        for wrong in ["1", "[0.5]", "\"all\"", "[3000000000]"] {
            let text = format!(r#"{{"what":"field","field":3,"steps":{wrong}}}"#);
            assert!(read(&text).is_err(), "{text}");
        }
        let text = serde_json::to_string(&says(&[-2, 0, 7])).expect("JSON");
        assert_eq!(read(&text).expect(&text), says(&[-2, 0, 7]));
    }

    #[test]
    fn budgets_are_two_buckets_an_octave_of_the_mean_gap() {
        assert_eq!(budget_bucket(5.0, 0), 63);
        assert_eq!(budget_bucket(-5.0, 3), 0);
        assert_eq!(budget_bucket(8.0, 2), 4);
        assert_eq!(budget_bucket(f64::MAX, 1), 62);
    }
}
