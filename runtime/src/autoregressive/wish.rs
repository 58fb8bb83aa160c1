//! What a flow's variables are wished to be: conditions as shares of tokens.
//!
//! A token stands for a value, for the values of a bin, or for all that octets spell. Its
//! share is how much of it is wished: none or all of a value; of a bin the part of the
//! numbers from 0 to 1 whose values are wished, to 2^-24 as these are drawn; all of what
//! octets may spell, since these have wishes of their own. So the probability of a wish,
//! given the variables before, is the sum of the softmax times the shares.

use std::collections::BTreeMap;
use std::sync::Arc;

use ns_model_format::autoregressive::{Autoregressive, Says, Variable};
use ns_model_format::codec::{Codec, TokensCodec};
use ns_model_format::{Schema, Value};

use crate::condition::{Clause, ConditionError};

/// Places within a bin, as many as numbers of 24 bits.
const CELLS: u32 = 1 << 24;

/// Numbers from and to, ascending.
type Ranges = Arc<[(u128, u128)]>;

/// A wish for each variable.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wishes {
    variables: Vec<Wish>,
    /// The last variable that has one.
    last: usize,
    /// Whether any has a tilt.
    is_tilted: bool,
}

/// What one variable is wished to be; anything, by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wish {
    /// How much of each token is wished, from 0 to 1; all of all, if empty.
    shares: Vec<f32>,
    /// Of bins of which a part is wished, where: from and to, of [`CELLS`].
    parts: BTreeMap<u32, Vec<(u32, u32)>>,
    octet: Option<Octet>,
    /// How many times as often each token is drawn as it should be, which its draft's weight
    /// takes back; once, if empty.
    tilts: Vec<f32>,
    /// The logarithm of share times tilt, where either is not 1.
    bias: Vec<f32>,
}

/// An octet of a number that is wished to be in certain ranges.
#[derive(Clone, Debug, PartialEq)]
struct Octet {
    /// The variables of the octets before.
    before: Vec<usize>,
    /// Bits of those after.
    bits_after: u32,
    /// From and to, ascending.
    ranges: Ranges,
}

impl Wishes {
    /// What the clauses wish of a model's variables.
    ///
    /// # Errors
    /// A clause that no value meets which the model can draw.
    pub(crate) fn new(
        model: &Autoregressive,
        schema: &Schema,
        clauses: &[Clause],
    ) -> Result<Wishes, ConditionError> {
        let mut wishes = Wishes {
            variables: vec![Wish::default(); model.attributes.len()],
            ..Wishes::default()
        };
        let variables = || model.attributes.iter().enumerate();
        for clause in clauses {
            // A bundle was checked for fields that all are tokens, and have variables.
            let Codec::Tokens(codec) = &schema.attributes[clause.at].codec else { continue };
            let (wish, ranges) = of_field(codec, clause)?;
            let places: Vec<usize> = variables()
                .filter(|(_, v)| matches!(v.says, Says::Field { field, .. } if field == clause.at))
                .map(|(at, _)| at)
                .collect();
            let Some((&first, octets)) = places.split_first() else { continue };
            wishes.set(first, wish);
            for (index, &at) in octets.iter().enumerate() {
                let octet = Octet {
                    before: octets[..index].to_vec(),
                    bits_after: 8 * (octets.len() - 1 - index) as u32,
                    ranges: ranges.clone(),
                };
                wishes.set(at, Wish { octet: Some(octet), ..Wish::default() });
            }
        }
        // A pair is wished if its fields' tokens are; how much of them, they say themselves.
        for (at, variable) in variables() {
            let Says::Pair { fields, pairs } = &variable.says else { continue };
            let of = |wanted: usize| {
                let is_of = |(_, v): &(usize, &Variable)| matches!(v.says, Says::Field { field, place: 0 } if field == wanted);
                variables().find(is_of).map(|(at, _)| &wishes.variables[at])
            };
            let [Some(a), Some(b)] = fields.map(of) else { continue };
            if a.shares.is_empty() && b.shares.is_empty() {
                continue;
            }
            let is_wished =
                |pair: &[u32; 2]| a.share_of(pair[0]) > 0.0 && b.share_of(pair[1]) > 0.0;
            let shares = pairs.iter().map(|pair| f32::from(is_wished(pair)));
            let shares = shares.chain([1.0]).collect();
            wishes.set(at, Wish { shares, ..Wish::default() });
        }
        Ok(wishes)
    }

    /// Wishes that rows have: `fields` are given, whatever their values.
    pub(crate) fn given(model: &Autoregressive, fields: &[bool]) -> Wishes {
        let is_given = |field: usize| fields.get(field).copied().unwrap_or(false);
        let has_one = |says: &Says| match says {
            Says::Field { field, .. } => is_given(*field),
            Says::Pair { fields, .. } => fields.iter().any(|&field| is_given(field)),
            _ => false,
        };
        let variables = vec![Wish::default(); model.attributes.len()];
        let last = model.attributes.iter().rposition(|variable| has_one(&variable.says));
        Wishes { variables, last: last.unwrap_or(0), is_tilted: false }
    }

    fn set(&mut self, at: usize, wish: Wish) {
        self.variables[at] = wish;
        self.variables[at].update();
        self.last = self.last.max(at);
    }

    /// The last variable with a wish: those after it are drawn as the model says.
    pub(crate) fn last(&self) -> usize {
        self.last
    }

    /// Whether any variable is tilted. Then drafts must not take each other's places: what one
    /// weighs less so far is made up for later.
    pub(super) fn is_tilted(&self) -> bool {
        self.is_tilted
    }

    pub(super) fn of(&self, at: usize) -> Option<&Wish> {
        self.variables.get(at)
    }

    /// Whether tokens of a variable can be drawn more often than they should be.
    pub(crate) fn takes_tilts(&self, at: usize) -> bool {
        at > 0 && at <= self.last && self.variables[at].octet.is_none()
    }

    /// Multiplies how often tokens of a variable are drawn, one factor a token.
    pub(crate) fn tilt(&mut self, at: usize, factors: &[f32]) {
        self.is_tilted = true;
        let wish = &mut self.variables[at];
        wish.tilts.resize(factors.len(), 1.0);
        wish.tilts.iter_mut().zip(factors).for_each(|(tilt, factor)| *tilt *= factor);
        wish.update();
    }
}

impl Wish {
    fn update(&mut self) {
        let size = self.shares.len().max(self.tilts.len());
        let logs = |values: &[f32], token| values.get(token).map_or(0.0, |value: &f32| value.ln());
        self.bias =
            (0..size).map(|token| logs(&self.shares, token) + logs(&self.tilts, token)).collect();
    }

    /// How much of a token is wished.
    pub(super) fn share_of(&self, token: u32) -> f32 {
        match self.shares.is_empty() {
            true => 1.0,
            false => self.shares.get(token as usize).copied().unwrap_or(0.0),
        }
    }

    /// Whether conditions say anything of the variable.
    pub(super) fn is_condition(&self) -> bool {
        !self.shares.is_empty() || self.octet.is_some()
    }

    /// Whether tokens are drawn otherwise than the model says.
    pub(super) fn is_any(&self) -> bool {
        !self.bias.is_empty() || self.octet.is_some()
    }

    /// The logarithm of share times tilt of every token; empty, if 0 for all.
    pub(super) fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// The logarithm of how many times as often a token is drawn as it should be.
    pub(super) fn log_tilt(&self, token: usize) -> f64 {
        self.tilts.get(token).map_or(0.0, |&tilt| f64::from(tilt).ln())
    }

    /// Whether a token may be, after the tokens of a row before it.
    pub(super) fn allows(&self, token: u32, row: &[f32]) -> bool {
        if !self.shares.is_empty() && self.share_of(token) == 0.0 {
            return false;
        }
        let Some(Octet { before, bits_after, ranges }) = &self.octet else { return true };
        let octets = before.iter().map(|&at| row[at] as u128 & 255);
        let prefix = octets.chain([u128::from(token & 255)]).fold(0, |all, octet| all << 8 | octet);
        let from = prefix << bits_after;
        let to = from | ((1 << bits_after) - 1);
        let at = ranges.partition_point(|range| range.1 < from);
        ranges.get(at).is_some_and(|range| range.0 <= to)
    }

    /// Where in a token's bin a uniform number is: in the parts that are wished.
    pub(super) fn within(&self, token: u32, uniform: f32) -> f32 {
        let Some(parts) = self.parts.get(&token) else { return uniform };
        let all: u32 = parts.iter().map(|(from, to)| to - from + 1).sum();
        let mut left = (f64::from(uniform) * f64::from(all)) as u32;
        for &(from, to) in parts {
            if left <= to - from {
                return (from + left) as f32 / CELLS as f32;
            }
            left -= to - from + 1;
        }
        parts.last().map_or(uniform, |&(_, to)| to as f32 / CELLS as f32)
    }
}

/// A wish for a field's token, and the numbers that its octets may spell.
fn of_field(codec: &TokensCodec, clause: &Clause) -> Result<(Wish, Ranges), ConditionError> {
    let sizes = codec.sizes();
    let octets = sizes.len() - 1;
    let mut wish = Wish::default();
    let mut ranges: Ranges = Arc::new([]);
    let mut known = Vec::new();
    for token in 0..sizes[0] as u32 {
        let value = |cell: u128| codec.value(&[token], cell as f64 / f64::from(CELLS));
        let last = u128::from(CELLS - 1);
        let share = if codec.octets_follow() == Some(token) {
            let last = u128::MAX >> (128 - 8 * octets as u32);
            let spelt = |number: u128| {
                let mut tokens = vec![token];
                tokens.extend((0..octets).rev().map(|at| (number >> (8 * at)) as u32 & 255));
                codec.value(&tokens, 0.0)
            };
            ranges = clause.holds_among(last, spelt).into();
            f32::from(!ranges.is_empty())
        } else if codec.is_exact(token) {
            known.push(value(0));
            f32::from(clause.matches(value(0)))
        } else {
            known.extend([value(0), value(last)]);
            let found = match value(0) {
                Value::Int(_) | Value::Float(_) => clause.holds_among(last, value),
                _ => holds_in_list(last, value, |value| clause.matches(value)),
            };
            let cells: Vec<(u32, u32)> =
                found.into_iter().map(|(from, to)| (from as u32, to as u32)).collect();
            let count: u32 = cells.iter().map(|(from, to)| to - from + 1).sum();
            if (1..CELLS).contains(&count) {
                wish.parts.insert(token, cells);
            }
            count as f32 / CELLS as f32
        };
        wish.shares.push(share);
    }
    match wish.shares.iter().any(|&share| share > 0.0) {
        true => Ok((wish, ranges)),
        false => Err(clause.not_known(&known)),
    }
}

/// Where among numbers 0 to `last` it holds: each value is that of numbers that follow one
/// another.
fn holds_in_list(
    last: u128,
    value: impl Fn(u128) -> Value,
    holds: impl Fn(Value) -> bool,
) -> Vec<(u128, u128)> {
    let mut found = Vec::new();
    let mut from = 0;
    while from <= last {
        let here = value(from);
        let (mut same, mut end) = (from, last + 1);
        while end - same > 1 {
            let middle = same + (end - same) / 2;
            if value(middle) == here { same = middle } else { end = middle }
        }
        if holds(here) {
            found.push((from, end - 1));
        }
        from = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use ns_model_format::codec::TokenOptions;
    use ns_model_format::schema::TimeEncoding;
    use ns_model_format::{Column, Field, FieldKind};

    use super::*;
    use crate::condition::clauses;

    fn wish(
        kind: FieldKind,
        column: &Column,
        options: &TokenOptions,
        conditions: &[&str],
    ) -> Result<(TokensCodec, Clause, Wish, Ranges), ConditionError> {
        let codec = TokensCodec::fit_with(column, options).unwrap();
        let bundle = crate::testing::bundle(TimeEncoding::Interarrival, None);
        let mut schema = bundle.manifest().schema.clone();
        let name = "x".to_owned();
        let field = Field { name, kind, codec: Codec::Tokens(codec.clone()), missing: None };
        schema.attributes = vec![field];
        let conditions: Vec<_> = conditions.iter().map(|text| text.parse().unwrap()).collect();
        let clause = clauses(&schema, &conditions)?.0.remove(0);
        let (wish, ranges) = of_field(&codec, &clause)?;
        Ok((codec, clause, wish, ranges))
    }

    /// The share of each token is that of its values, and what is drawn in it meets the clause.
    fn check(codec: &TokensCodec, clause: &Clause, wish: &Wish) -> usize {
        const GRID: u32 = 4096;
        let mut cut = 0;
        for token in (0..codec.sizes()[0] as u32).filter(|&t| codec.octets_follow() != Some(t)) {
            let places = (0..GRID).map(|at| (at as f32 + 0.5) / GRID as f32);
            let holds = |place: f32| clause.matches(codec.value(&[token], f64::from(place)));
            let share = places.clone().filter(|&place| holds(place)).count() as f32 / GRID as f32;
            let found = wish.share_of(token);
            // Both ends of few ranges.
            assert!((share - found).abs() <= 8.0 / GRID as f32, "{token}: {found} of {share}");
            if found > 0.0 {
                assert!(places.chain([0.0, 1.0]).all(|place| holds(wish.within(token, place))));
            }
            cut += usize::from(found > 0.0 && found < 1.0);
        }
        cut
    }

    #[test]
    fn shares_are_those_of_the_values_in_a_bin() {
        let ports = Column::ints("x", (0..3000).map(|i| (i * i) % 60_000).collect());
        let options = TokenOptions { least_count: 4, bins: 12, ..TokenOptions::default() };
        for (conditions, bins_cut) in [
            (&["x=1024-2047"][..], 1),
            (&["x=100", "x=5000-30000"], 1),
            (&["x!=1025"], 1),
            (&["x=1000-9000", "x!=2000-2500"], 1),
            (&["x!=59999"], 0),
        ] {
            let (codec, clause, wish, _) =
                wish(FieldKind::Integer, &ports, &options, conditions).unwrap();
            assert!(check(&codec, &clause, &wish) >= bins_cut, "{conditions:?}");
        }
        let loads = Column::floats("x", (0..900).map(|i| f64::from(i).powi(2) / 777.0).collect());
        let options = TokenOptions { integer: false, log: true, bins: 9, ..options };
        let kind = FieldKind::Float { decimals: 2 };
        for conditions in [&["x=0.5-3"][..], &["x=17.25"], &["x!=100-200"]] {
            let (codec, clause, wish, _) =
                wish(kind.clone(), &loads, &options, conditions).unwrap();
            assert!(check(&codec, &clause, &wish) > 0, "{conditions:?}");
        }
        let words: Vec<String> = (0..300).map(|i| format!("host{:03}", i * 7 % 300)).collect();
        let words = Column::texts("x", words);
        for conditions in [&["x=host123"][..], &["x!=host123", "x!=host007"]] {
            let (codec, clause, wish, _) =
                wish(FieldKind::Text, &words, &TokenOptions::default(), conditions).unwrap();
            assert!(check(&codec, &clause, &wish) > 0, "{conditions:?}");
        }
    }

    #[test]
    fn octets_spell_what_is_wished_and_nothing_else() {
        let addresses = Column::ints("x", vec![0x0a00_0001, 0x0a00_0001, 0x0a00_0001, 7, 8]);
        let options = TokenOptions { octets: Some(4), ..TokenOptions::default() };
        let range = |from: u32, to: u32| (u128::from(from), u128::from(to));
        for (conditions, expected) in [
            (&["x=10.0.0.0/8"][..], vec![range(0x0a00_0000, 0x0aff_ffff)]),
            (&["x=10.0.0.9", "x=10.0.0.10"], vec![range(0x0a00_0009, 0x0a00_000a)]),
            (&["x!=10.0.0.1"], vec![range(0, 0x0a00_0000), range(0x0a00_0002, u32::MAX)]),
            (&["x!=255.255.255.255"], vec![range(0, u32::MAX - 1)]),
        ] {
            let (codec, clause, wish, ranges) =
                wish(FieldKind::Ipv4, &addresses, &options, conditions).unwrap();
            assert_eq!(&*ranges, expected, "{conditions:?}");
            check(&codec, &clause, &wish);
            let before = vec![0, 1];
            let octet = Octet { before, bits_after: 8, ranges };
            let wish = Wish { octet: Some(octet), ..Wish::default() };
            for third in 0..256 {
                let from = 0x0a00_0000 | third << 8;
                let can = (from..from + 256).any(|n| clause.matches(Value::Int(n.into())));
                assert_eq!(wish.allows(third, &[10.0, 0.0]), can, "{conditions:?} {third}");
            }
        }
    }

    #[test]
    fn what_the_model_has_not_is_refused_with_what_is_nearest() {
        let ports = Column::ints("x", [vec![80; 9], vec![443; 9], (6000..6020).collect()].concat());
        let options = TokenOptions { bins: 2, ..TokenOptions::default() };
        let error = |condition| {
            wish(FieldKind::Integer, &ports, &options, &[condition]).unwrap_err().to_string()
        };
        assert_eq!(
            error("x=100-200"),
            "no value of `x` meets `x=100-200`; the nearest of `x` are `80` and `443`"
        );
        assert_eq!(
            error("x=5000"),
            "no value of `x` meets `x=5000`; the nearest of `x` are `443` and `6000`"
        );
        assert_eq!(
            error("x!=0-65535"),
            "no value of `x` meets `x!=0-65535`; `x` is from 80 to 6019"
        );
        assert!(wish(FieldKind::Integer, &ports, &options, &["x=6019"]).is_ok());
    }
}
