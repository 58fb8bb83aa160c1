//! Any value as one of a few hundred tokens: frequent values have tokens of their
//! own, the others share bins, addresses fall to their octets.
//!
//! What autoregressive models are made of. A token says a value, or a bin in which a
//! second draw finds one; see [`TokensCodec::value`].

mod bins;

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::choice::{Choice, counted};
use super::{CodecError, Encoder, FitOptions, Rows, folded_classes};
use crate::column::{Column, ColumnData};
use crate::layout::{Activation, Segment};
use crate::record::Value;
use bins::Bins;

/// A token is a number below this.
const MOST_TOKENS: usize = 1 << 14;
/// An IPv6 address.
const MOST_OCTETS: u8 = 16;

/// How values become tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensCodec {
    /// Values with tokens of their own, numbered as they stand.
    values: Values,
    /// What the values after them are.
    rest: Rest,
    /// Of numbers, whether the last token of all says that there is none.
    missing: bool,
    /// Numbers decode to whole numbers.
    integer: bool,
}

/// Values of one type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Values {
    /// Ascending.
    Numbers(Vec<f64>),
    /// Texts, or numbers of more than 63 bits: the first `own` have tokens, the
    /// others are in bins, if anywhere.
    Choices {
        /// All that were seen, unless rare ones fall to octets.
        all: Arc<[Choice]>,
        /// How many have tokens of their own.
        own: u32,
    },
}

/// What has no token of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rest {
    /// Nothing.
    None,
    /// Numbers.
    Bins(Bins),
    /// The choices without a token, in bins: where in the list each begins.
    Seen(Vec<u32>),
    /// One token, and then a token for each octet.
    Octets(u8),
}

/// How tokens are fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenOptions {
    /// Most values with tokens of their own.
    pub most_values: usize,
    /// How often such a value was seen at least.
    pub least_count: u64,
    /// Values with a token although they are rarer, ascending.
    pub known: Vec<Choice>,
    /// Of such values as random choice among many leaves too, a value needs to be seen so
    /// much more often than its neighbours: ports.
    pub stands_out: bool,
    /// Bins for the others.
    pub bins: usize,
    /// Numbers at which a bin ends, whatever the others.
    pub edges: Vec<f64>,
    /// Bins are even in the logarithm inside.
    pub log: bool,
    /// Parts of a bin that hold equally many of the numbers.
    pub parts: usize,
    /// Whole numbers, ascending, that are not to come again out of bins of one part each,
    /// unless a bin would be left fewer numbers than half of the rows in it.
    pub skipped: Vec<i64>,
    /// Others fall to so many octets instead of bins.
    pub octets: Option<u8>,
    /// Decode to whole numbers.
    pub integer: bool,
}

impl Default for TokenOptions {
    fn default() -> TokenOptions {
        TokenOptions {
            most_values: 256,
            least_count: 3,
            known: Vec::new(),
            stands_out: false,
            bins: 32,
            edges: Vec::new(),
            log: false,
            parts: 8,
            skipped: Vec::new(),
            octets: None,
            integer: true,
        }
    }
}

impl TokensCodec {
    /// Fits tokens on a column.
    ///
    /// # Errors
    /// No values, or values that the options cannot take.
    pub fn fit_with(column: &Column, options: &TokenOptions) -> Result<TokensCodec, CodecError> {
        let listed = matches!(column.data, ColumnData::Wide(_) | ColumnData::Text { .. });
        let codec = if listed {
            fit_choices(column, options)
        } else {
            let rows = (0..column.len()).filter(|&row| !column.is_missing(row));
            let mut numbers = Vec::with_capacity(column.len());
            for row in rows {
                match column.value(row).as_f64().filter(|number| number.is_finite()) {
                    Some(number) => numbers.push(number),
                    None => {
                        let reason = "is not a finite number".to_owned();
                        return Err(CodecError::value(column, row, reason));
                    }
                }
            }
            let missing = column.has_missing();
            TokensCodec { missing, ..TokensCodec::of_numbers(numbers, options) }
        };
        if codec.sizes()[0] == 0 {
            return Err(CodecError::Empty { column: column.name.clone() });
        }
        let column = column.name.clone();
        codec.validate().map_err(|reason| CodecError::Option { column, reason })?;
        Ok(codec)
    }

    /// Fits tokens on finite numbers.
    #[must_use]
    pub fn of_numbers(mut numbers: Vec<f64>, options: &TokenOptions) -> TokensCodec {
        // Zeros are one number, whatever their sign.
        numbers.iter_mut().for_each(|number| *number += 0.0);
        numbers.sort_unstable_by(f64::total_cmp);
        let mut runs: Vec<(f64, u64)> = Vec::new();
        for &number in &numbers {
            match runs.last_mut() {
                Some((last, count)) if *last == number => *count += 1,
                _ => runs.push((number, 1)),
            }
        }
        let known: Vec<f64> = options.known.iter().filter_map(Choice::number).collect();
        let is_frequent = |&&(number, count): &&(f64, u64)| {
            count >= options.least_count
                && (!options.stands_out || stands_out(&numbers, number, count))
                || known.binary_search_by(|other| other.total_cmp(&number)).is_ok()
        };
        let mut frequent: Vec<(u64, f64)> =
            runs.iter().filter(is_frequent).map(|&(number, count)| (count, number)).collect();
        // The most frequent; of equals the smaller.
        frequent.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.total_cmp(&b.1)));
        frequent.truncate(options.most_values);
        let mut values: Vec<f64> = frequent.into_iter().map(|(_, number)| number).collect();
        values.sort_unstable_by(f64::total_cmp);
        let is_frequent =
            |number: &f64| values.binary_search_by(|value| value.total_cmp(number)).is_ok();
        let others: Vec<f64> = numbers.into_iter().filter(|number| !is_frequent(number)).collect();
        let rest = match (others.is_empty(), options.octets) {
            // An address that was not seen can still be given.
            (_, Some(octets)) => Rest::Octets(octets),
            (true, None) => Rest::None,
            (false, None) => Rest::Bins(Bins::fit(&others, &values, options)),
        };
        let values = Values::Numbers(values);
        TokensCodec { values, rest, missing: false, integer: options.integer }
    }

    /// Counts of 1 to 16 each with a token, then two bins an octave up to the largest.
    #[must_use]
    pub fn of_counts(most: u64) -> TokensCodec {
        const EACH: u64 = 16;
        let values = Values::Numbers((1..=most.clamp(1, EACH)).map(|n| n as f64).collect());
        let rest = if most > EACH { Rest::Bins(Bins::of_counts(EACH, most)) } else { Rest::None };
        TokensCodec { values, rest, missing: false, integer: true }
    }

    /// How many tokens there are in each place: the value's, then its octets'.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        let (more, octets) = match &self.rest {
            Rest::None => (0, 0),
            Rest::Bins(bins) => (bins.len(), 0),
            Rest::Seen(begins) => (begins.len(), 0),
            Rest::Octets(octets) => (1, usize::from(*octets)),
        };
        let first = self.own() as usize + more + usize::from(self.missing);
        std::iter::once(first).chain(std::iter::repeat_n(256, octets)).collect()
    }

    /// The token that octets follow, if octets are what rare values fall to.
    #[must_use]
    pub fn octets_follow(&self) -> Option<u32> {
        match self.rest {
            Rest::Octets(_) => Some(self.own()),
            _ => None,
        }
    }

    /// Whether a token says one value; others say a bin, or that octets follow.
    #[must_use]
    pub fn is_exact(&self, token: u32) -> bool {
        token < self.own() || (self.missing && token >= self.missing_token())
    }

    /// Values with tokens of their own.
    fn own(&self) -> u32 {
        match &self.values {
            Values::Numbers(values) => values.len() as u32,
            Values::Choices { own, .. } => *own,
        }
    }

    fn missing_token(&self) -> u32 {
        (self.sizes()[0] - 1) as u32
    }

    /// The token of a number; of one outside of all bins the nearest bin's.
    #[must_use]
    pub fn token_of(&self, number: f64) -> u32 {
        let number = number + 0.0;
        if let Values::Numbers(values) = &self.values
            && let Ok(at) = values.binary_search_by(|value| value.total_cmp(&number))
        {
            return at as u32;
        }
        match &self.rest {
            Rest::Bins(bins) => self.own() + bins.bin_of(number) as u32,
            Rest::Octets(_) => self.own(),
            // The nearest value there is.
            _ => match &self.values {
                Values::Numbers(values) => {
                    let at = values.partition_point(|value| *value < number);
                    let below = at.saturating_sub(1);
                    let nearer_below = values.get(at).is_none_or(|above| {
                        (number - values[below]).abs() <= (above - number).abs()
                    });
                    (if nearer_below { below } else { at }) as u32
                }
                Values::Choices { .. } => 0,
            },
        }
    }

    /// The value that tokens say, one for each of [`Self::sizes`]: in a bin the one at
    /// `within` (0 to 1) of it. Tokens that do not exist count as the last.
    #[must_use]
    pub fn value(&self, tokens: &[u32], within: f64) -> Value {
        let (first, own) = (tokens[0], self.own());
        if self.missing && first >= self.missing_token() {
            return Value::Missing;
        }
        if first < own {
            return match &self.values {
                Values::Numbers(values) => self.number(values[first as usize]),
                Values::Choices { all, .. } => all[first as usize].value(first as usize),
            };
        }
        match &self.rest {
            Rest::Bins(bins) => self.number(bins.number_at((first - own) as usize, within)),
            Rest::Seen(begins) => {
                let Values::Choices { all, .. } = &self.values else { return Value::Missing };
                let bin = ((first - own) as usize).min(begins.len().saturating_sub(1));
                let begin = begins[bin] as usize;
                let end = begins.get(bin + 1).map_or(all.len(), |&end| end as usize);
                let offset = (within * (end - begin) as f64) as usize;
                let at = (begin + offset).min(end.saturating_sub(1));
                all[at].value(at)
            }
            Rest::Octets(octets) => {
                let octets = tokens[1..].iter().take(usize::from(*octets));
                let value = octets.fold(0_u128, |value, &o| value << 8 | u128::from(o & 255));
                match &self.values {
                    Values::Choices { .. } => Value::Wide(value.into()),
                    Values::Numbers(_) => Value::Int(value as i64),
                }
            }
            Rest::None => match &self.values {
                Values::Numbers(values) => self.number(values.last().copied().unwrap_or(0.0)),
                Values::Choices { all, .. } => match all.last() {
                    Some(last) => last.value(all.len() - 1),
                    None => Value::Missing,
                },
            },
        }
    }

    /// The number that a token says, not rounded; 0 for what is no number.
    #[must_use]
    pub fn number_at(&self, token: u32, within: f64) -> f64 {
        let own = self.own();
        match (&self.values, &self.rest) {
            (Values::Numbers(values), _) if token < own => values[token as usize],
            (_, Rest::Bins(bins)) => bins.number_at((token - own) as usize, within),
            (Values::Numbers(values), _) => values.last().copied().unwrap_or(0.0),
            _ => 0.0,
        }
    }

    /// The smallest and the largest number that a token says, not rounded, at places that are
    /// float32 below 1.
    #[must_use]
    pub fn ends(&self, token: u32) -> [f64; 2] {
        [0.0, 1.0_f32.next_down()].map(|within| self.number_at(token, within.into()))
    }

    /// The smallest and the largest number that tokens say; nothing is outside of the range of
    /// what are no numbers.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        let (mut smallest, mut largest) = (f64::INFINITY, f64::NEG_INFINITY);
        if let Values::Numbers(values) = &self.values {
            smallest = values.first().copied().unwrap_or(smallest);
            largest = values.last().copied().unwrap_or(largest);
            if let Rest::Bins(bins) = &self.rest {
                let [first, last] = bins.range();
                // Whole numbers are below a bin's last edge.
                smallest = smallest.min(first);
                largest = largest.max(if self.integer { (last - 1.0).ceil() } else { last });
            }
        }
        if smallest <= largest { (smallest, largest) } else { (f64::NEG_INFINITY, f64::INFINITY) }
    }

    fn number(&self, number: f64) -> Value {
        // Bins of whole numbers have whole edges: below an edge is inside.
        if !self.integer {
            return Value::Float(number);
        }
        // Downwards: `floor` is a call on some CPUs.
        let whole = number as i64;
        Value::Int(if whole as f64 > number { whole.saturating_sub(1) } else { whole })
    }

    /// Appends the tokens of every row of a column, [`Self::sizes`] each; what has no
    /// octets has 0 there.
    ///
    /// # Errors
    /// A value that has no token, with its row.
    pub fn tokens(&self, column: &Column, out: &mut Vec<u32>) -> Result<(), CodecError> {
        let octets = self.sizes().len() - 1;
        let index = self.choice_index();
        let by_word: Vec<Option<u32>> = column
            .words()
            .iter()
            .map(|word| index.get(&Choice::Text(word.clone())).copied())
            .collect();
        for row in 0..column.len() {
            let value = column.value(row);
            let fail = |reason: &str| CodecError::value(column, row, reason.to_owned());
            let (token, bits) = match (&self.values, value) {
                (Values::Numbers(_), Value::Missing) if self.missing => (self.missing_token(), 0),
                (Values::Numbers(_), Value::Missing) => return Err(fail("is missing")),
                (Values::Numbers(_), value) => match value.as_f64().filter(|n| n.is_finite()) {
                    Some(number) => (self.token_of(number), number as i64 as u128),
                    None => return Err(fail("is not a finite number")),
                },
                (Values::Choices { .. }, Value::Text(id)) => {
                    let token = by_word.get(id as usize).copied().flatten();
                    (token.ok_or_else(|| fail("was not there when tokens were fitted"))?, 0)
                }
                (Values::Choices { .. }, _) => {
                    let choice = Choice::of(column, row);
                    let bits = match choice {
                        Choice::Wide(wide) => u128::from(wide),
                        Choice::Int(int) => int as u128,
                        _ => 0,
                    };
                    let token = index.get(&choice).copied().or(self.octets_follow());
                    (token.ok_or_else(|| fail("was not there when tokens were fitted"))?, bits)
                }
            };
            let follow = self.octets_follow() == Some(token);
            if follow && !self.octets_say(value, bits) {
                return Err(fail(&format!("is no whole number of {octets} octets")));
            }
            out.push(token);
            for octet in (0..octets).rev() {
                out.push(if follow { (bits >> (8 * octet)) as u32 & 255 } else { 0 });
            }
        }
        Ok(())
    }

    /// Whether a value is what its octets say.
    fn octets_say(&self, value: Value, bits: u128) -> bool {
        let Rest::Octets(octets) = self.rest else { return false };
        let fits = bits.checked_shr(8 * u32::from(octets)).unwrap_or(0) == 0;
        match &self.values {
            Values::Numbers(_) => fits && value.as_f64() == Some(bits as f64),
            Values::Choices { .. } => fits,
        }
    }

    /// The token of every choice.
    fn choice_index(&self) -> HashMap<Choice, u32> {
        let Values::Choices { all, own } = &self.values else { return HashMap::new() };
        let bin_of = |at: u32| match &self.rest {
            Rest::Seen(begins) => begins.partition_point(|&begin| begin <= at).saturating_sub(1),
            _ => 0,
        };
        let token = |at: u32| if at < *own { at } else { own + bin_of(at) as u32 };
        all.iter().cloned().zip((0..).map(token)).collect()
    }

    /// Every value that there is, if they are listed.
    pub(super) fn choices(&self) -> Option<&[Choice]> {
        match (&self.values, &self.rest) {
            (Values::Choices { all, .. }, Rest::None | Rest::Seen(_)) => Some(all),
            _ => None,
        }
    }

    /// The smallest and largest number.
    pub(super) fn bounds(&self) -> Option<(f64, f64)> {
        let Values::Numbers(values) = &self.values else { return None };
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        if let (Some(first), Some(last)) = (values.first(), values.last()) {
            (least, most) = (*first, *last);
        }
        match &self.rest {
            Rest::Bins(bins) => {
                let [first, last] = bins.range();
                least = least.min(first);
                most = most.max(last - f64::from(u8::from(self.integer)));
            }
            Rest::Octets(octets) => {
                (least, most) = (least.min(0.0), 256_f64.powi(i32::from(*octets)) - 1.0);
            }
            Rest::None | Rest::Seen(_) => {}
        }
        (least <= most).then_some((least, most))
    }

    /// Whether missing values have a token.
    pub(super) fn takes_missing(&self) -> bool {
        let listed =
            matches!(&self.values, Values::Choices { all, .. } if all.contains(&Choice::Missing));
        self.missing || listed
    }
}

fn fit_choices(column: &Column, options: &TokenOptions) -> TokensCodec {
    let mut counts: Vec<(Choice, u64)> = counted(column);
    // The most frequent first, and what has no bin; of equals in the order of the values.
    let rank = |(choice, count): &(Choice, u64)| match choice {
        Choice::Missing => u64::MAX,
        _ if options.known.binary_search(choice).is_ok() => options.least_count.max(*count),
        _ => *count,
    };
    counts.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.0.cmp(&b.0)));
    let frequent =
        counts.iter().take(options.most_values).filter(|c| rank(c) >= options.least_count);
    // Rare values of a short list need no bins.
    let short = counts.len() <= options.bins && options.octets.is_none();
    let own = if short { counts.len() } else { frequent.count() };
    let mut all: Vec<Choice> = counts.into_iter().map(|(choice, _)| choice).collect();
    all[..own].sort_unstable();
    all[own..].sort_unstable();
    let others = all.len() - own;
    let rest = match (others, options.octets) {
        (0, None) => Rest::None,
        (_, Some(octets)) => {
            all.truncate(own);
            Rest::Octets(octets)
        }
        (_, None) => {
            let bins = options.bins.clamp(1, others);
            Rest::Seen((0..bins).map(|bin| (own + bin * others / bins) as u32).collect())
        }
    };
    let values = Values::Choices { all: all.into(), own: own as u32 };
    TokensCodec { values, rest, missing: false, integer: options.integer }
}

/// Whether a number was seen much more often than those around it.
fn stands_out(sorted: &[f64], number: f64, count: u64) -> bool {
    const AROUND: f64 = 256.0;
    let below = |edge: f64| sorted.partition_point(|other| *other < edge) as f64;
    let near = below(number + AROUND) - below(number - AROUND) - count as f64;
    let expected = near / (2.0 * AROUND);
    count as f64 > 2.0 + expected + 4.0 * expected.sqrt()
}

impl Encoder for TokensCodec {
    fn fit(column: &Column, options: &FitOptions<'_>) -> Result<Self, CodecError> {
        let options = TokenOptions { integer: options.integer, ..TokenOptions::default() };
        TokensCodec::fit_with(column, &options)
    }

    fn segments(&self) -> Vec<Segment> {
        self.sizes().into_iter().map(|size| Segment::new(size, Activation::Softmax)).collect()
    }

    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError> {
        let sizes = self.sizes();
        let mut tokens = Vec::with_capacity(column.len() * sizes.len());
        self.tokens(column, &mut tokens)?;
        for (out, tokens) in rows.zip(tokens.chunks_exact(sizes.len())) {
            out.fill(0.0);
            let mut from = 0;
            for (&token, size) in tokens.iter().zip(&sizes) {
                out[from + token as usize] = 1.0;
                from += size;
            }
        }
        Ok(())
    }

    fn decode(&self, folded: &[f32]) -> Value {
        let mut from = 0;
        let tokens: Vec<u32> = self
            .sizes()
            .into_iter()
            .map(|size| {
                let token = super::class_of(&folded[from..], size) as u32;
                from += folded_classes(size);
                token
            })
            .collect();
        self.value(&tokens, 0.5)
    }

    fn word(&self, index: u32) -> &str {
        match &self.values {
            Values::Choices { all, .. } => all.get(index as usize).map_or("", Choice::word),
            Values::Numbers(_) => "",
        }
    }

    fn validate(&self) -> Result<(), String> {
        let sizes = self.sizes();
        if !(1..=MOST_TOKENS).contains(&sizes[0]) {
            return Err(format!("{} tokens; expected 1 to {MOST_TOKENS}", sizes[0]));
        }
        if let Values::Numbers(numbers) = &self.values
            && !bins::finite_and_ascending(numbers)
        {
            return Err("values are not in ascending order".to_owned());
        }
        match (&self.values, &self.rest) {
            (Values::Choices { .. }, Rest::Bins(_)) | (Values::Numbers(_), Rest::Seen(_)) => {
                Err("bins of another type than the values".to_owned())
            }
            (Values::Choices { all, own }, _) if *own as usize > all.len() => {
                Err(format!("{} values, of which {own} have tokens", all.len()))
            }
            (Values::Choices { all, own }, Rest::None | Rest::Octets(_))
                if (*own as usize) < all.len() =>
            {
                Err("bins do not divide the values".to_owned())
            }
            (Values::Choices { .. }, _) if self.missing => {
                Err("a token for what is missing beside those of texts".to_owned())
            }
            (_, Rest::Bins(bins)) => bins.validate(self.integer),
            (Values::Choices { all, own }, Rest::Seen(begins))
                if begins.first() != Some(own)
                    || !begins.windows(2).all(|pair| pair[0] < pair[1])
                    || begins.last().is_none_or(|&last| last as usize >= all.len()) =>
            {
                Err("bins do not divide the values".to_owned())
            }
            (_, Rest::Octets(octets)) if !(1..=MOST_OCTETS).contains(octets) => {
                Err(format!("{octets} octets; expected 1 to {MOST_OCTETS}"))
            }
            _ => Ok(()),
        }
    }

    fn describe(&self) -> String {
        let own = self.own();
        match &self.rest {
            Rest::None => format!("tokens {own}"),
            Rest::Bins(bins) => format!("tokens {own} + {} bins", bins.len()),
            Rest::Seen(begins) => format!("tokens {own} + {} bins of values", begins.len()),
            Rest::Octets(octets) => format!("tokens {own} + {octets} octets"),
        }
    }
}

#[cfg(test)]
mod tests;
