//! The k most frequent values each have an output of their own, the rest fall
//! back to another encoding.
//!
//! Heavy-hitter hosts and service ports come out exactly, and in their shares;
//! what is rare still varies.

use serde::{Deserialize, Serialize};

use super::choice::{Choice, Lookup, counted};
use super::{
    Codec, CodecError, Encoder, FitOptions, Rows, WordSpaces, class_of, encode_some,
    folded_classes, write_blank,
};
use crate::column::{Column, ColumnData};
use crate::layout::{Activation, Segment};
use crate::record::Value;

const DEFAULT_K: usize = 64;
const MOST_K: usize = 4096;

/// A value among frequent ones, or one of the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopkCodec {
    /// The most frequent first.
    top: Vec<Choice>,
    /// The encoder of all others; none if there are no others.
    rest: Option<Box<Codec>>,
}

impl TopkCodec {
    /// Classes of the softmax: a class a frequent value, one for the rest.
    fn classes(&self) -> usize {
        self.top.len() + usize::from(self.rest.is_some())
    }

    /// The only values that it decodes to, if there is no rest.
    #[must_use]
    pub fn choices(&self) -> Option<&[Choice]> {
        self.rest.is_none().then_some(self.top.as_slice())
    }

    pub(super) fn takes_missing(&self) -> bool {
        self.top.contains(&Choice::Missing)
            || self.rest.as_ref().is_some_and(|rest| rest.takes_missing())
    }

    fn check_rest(rest: &Codec) -> Result<(), String> {
        match rest {
            Codec::Topk(_) | Codec::Optional(_) | Codec::Categorical(_) => {
                Err("the rest of a `topk` falls back to `bit`, `octets`, `quantile`, \
                     `log_quantile`, `float` or `word2vec_NAME`"
                    .to_owned())
            }
            _ => rest.validate(),
        }
    }
}

impl Encoder for TopkCodec {
    fn fit(column: &Column, options: &FitOptions<'_>) -> Result<Self, CodecError> {
        let option = |reason: String| CodecError::Option { column: column.name.clone(), reason };
        let k = options.k.unwrap_or(DEFAULT_K);
        if !(1..=MOST_K).contains(&k) {
            return Err(option(format!("`k` is {k}; expected 1 to {MOST_K}")));
        }
        let mut values = counted(column);
        if values.is_empty() {
            return Err(CodecError::Empty { column: column.name.clone() });
        }
        // Most frequent first, ties in order of value. That a value is missing
        // is said by a class of its own: no fallback could.
        values
            .sort_by_key(|(choice, count)| (*choice != Choice::Missing, std::cmp::Reverse(*count)));
        let distinct = values.len();
        // Bits that are asked for can say any value. They take those seen once, and are there in
        // any case: then values that were never seen come out, and can be given.
        let says_any = options.fallback == Some("bit");
        let is_own = |(choice, count): &&(Choice, u64)| *count > 1 || *choice == Choice::Missing;
        let most = if says_any { values.iter().filter(is_own).count().max(1) } else { distinct };
        let count = k.min(most);
        let top: Vec<Choice> = values.into_iter().take(count).map(|(choice, _)| choice).collect();
        if count == distinct && !says_any {
            return Ok(TopkCodec { top, rest: None });
        }
        let fallback = match (options.fallback, &column.data) {
            (Some(fallback), _) => fallback,
            (None, ColumnData::Float(_)) => "quantile",
            (None, ColumnData::Int(_) | ColumnData::Wide(_)) => "bit",
            (None, ColumnData::Text { .. }) => {
                return Err(option(format!(
                    "`topk` of text with {distinct} values needs `fallback`: \"word2vec_NAME\""
                )));
            }
        };
        let mut others: Vec<usize> = {
            let lookup = Lookup::new(column, &top);
            (0..column.len()).filter(|&row| lookup.place(row).is_none()).collect()
        };
        if others.is_empty() {
            others = (0..column.len()).filter(|&row| !column.is_missing(row)).collect();
        }
        if others.is_empty() {
            return Ok(TopkCodec { top, rest: None });
        }
        let options = FitOptions { choices: None, fallback: None, ..*options };
        let rest = Codec::fit(fallback, &column.pick(&others), options)?;
        TopkCodec::check_rest(&rest).map_err(option)?;
        Ok(TopkCodec { top, rest: Some(Box::new(rest)) })
    }

    fn validate(&self) -> Result<(), String> {
        if self.top.len() > MOST_K || self.classes() == 0 {
            return Err(format!("{} frequent values; expected 1 to {MOST_K}", self.top.len()));
        }
        let mut sorted: Vec<&Choice> = self.top.iter().collect();
        sorted.sort();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("value `{}` is listed twice", pair[0]));
        }
        self.rest.as_ref().map_or(Ok(()), |rest| TopkCodec::check_rest(rest))
    }

    fn link(&mut self, spaces: &WordSpaces) -> Result<(), String> {
        self.rest.as_mut().map_or(Ok(()), |rest| rest.link(spaces))
    }

    fn segments(&self) -> Vec<Segment> {
        let mut segments = vec![Segment::new(self.classes(), Activation::Softmax)];
        segments.extend(self.rest.iter().flat_map(|rest| rest.segments()));
        segments
    }

    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError> {
        let lookup = Lookup::new(column, &self.top);
        let blank = self.rest.as_ref().map(|rest| rest.segments()).unwrap_or_default();
        let mut others = Vec::new();
        for (row, out) in rows.enumerate().take(column.len()) {
            let (class, rest) = out.split_at_mut(self.classes());
            class.fill(0.0);
            if let Some(at) = lookup.place(row) {
                class[at] = 1.0;
                write_blank(&blank, rest);
            } else {
                others.push((row, rest));
                if let Some(other) = class.get_mut(self.top.len()) {
                    *other = 1.0;
                }
            }
        }
        match (&self.rest, others.first()) {
            (Some(rest), _) => encode_some(rest, column, others),
            (None, Some(&(row, _))) => {
                let reason = format!("is not among the {} values seen", self.top.len());
                Err(CodecError::value(column, row, reason))
            }
            (None, None) => Ok(()),
        }
    }

    #[inline]
    fn decode(&self, folded: &[f32]) -> Value {
        let class = class_of(folded, self.classes());
        match (self.top.get(class), &self.rest) {
            (Some(choice), _) => choice.value(class),
            (None, Some(rest)) => match rest.decode(&folded[folded_classes(self.classes())..]) {
                Value::Text(index) => Value::Text(index + self.top.len() as u32),
                other => other,
            },
            // Without a rest there is a class a value.
            (None, None) => Value::Missing,
        }
    }

    fn word(&self, index: u32) -> &str {
        match (self.top.get(index as usize), &self.rest) {
            (Some(choice), _) => choice.word(),
            (None, Some(rest)) => rest.word(index - self.top.len() as u32),
            (None, None) => "",
        }
    }

    fn describe(&self) -> String {
        match &self.rest {
            Some(rest) => format!("topk {}, else {}", self.top.len(), rest.describe()),
            None => format!("topk all {}", self.top.len()),
        }
    }
}
