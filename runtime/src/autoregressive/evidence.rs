//! What flows of the same kind had, added to a variable's logits: for the tokens of one or two
//! variables before it, some of its tokens and how much each gets.

use ns_model_format::autoregressive::{MOST_EVIDENCE, Variable};

use crate::hashed::HashedMap;
use crate::kernels::LANES;

/// A context's lists.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// Variables, and how many tokens each has.
    of: Vec<(usize, usize)>,
    lists: Lists,
    /// Tokens and what each gets.
    entries: Vec<(u32, f32)>,
}

/// Where the entries of each key begin and end.
#[derive(Clone, Debug)]
enum Lists {
    /// Of all keys that there can be.
    All(Box<[[u32; 2]]>),
    Few(HashedMap<[u32; 2]>),
}

/// So many keys lie in a list at most: looking one up there is one wait for memory, not two.
const MOST_LISTED: u64 = 4096;

/// Spreads keys that are near each other.
fn spread(key: u32) -> u64 {
    u64::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Context {
    /// Of the tables of a bundle: ascending `keys`, where the `tokens` of each end, and what
    /// each of these gets.
    ///
    /// # Errors
    /// Why they are none of a variable of `size` tokens.
    pub(super) fn new(
        of: Vec<(usize, usize)>,
        size: usize,
        [keys, ends, tokens]: [Vec<u32>; 3],
        values: Vec<f32>,
    ) -> Result<Context, &'static str> {
        let ascend = keys.is_sorted_by(|one, next| one < next);
        if !ascend || keys.len() != ends.len() || !ends.is_sorted_by(|one, next| one < next) {
            return Err("keys that do not ascend, or have no tokens");
        }
        if tokens.len() > MOST_EVIDENCE
            || tokens.len() != values.len()
            || ends.last().map_or(0, |&end| end as usize) != tokens.len()
            || ends.first() == Some(&0)
        {
            return Err("too many tokens, or others than its keys have");
        }
        if tokens.iter().any(|&token| token as usize >= size) {
            return Err("tokens that there are not");
        }
        if !values.iter().all(|value| value.is_finite()) {
            return Err("values that are not finite");
        }
        let begins = std::iter::once(0).chain(ends.iter().copied());
        let lists = keys.iter().copied().zip(begins.zip(ends.iter().copied()));
        let lists = lists.map(|(key, (begin, end))| (key, [begin, end]));
        let possible = of.iter().map(|&(_, size)| size as u64 + 1).fold(1, u64::saturating_mul);
        if keys.last().is_some_and(|&key| u64::from(key) >= possible) {
            return Err("keys that no tokens have");
        }
        let lists = match possible {
            ..=MOST_LISTED => {
                let mut all = vec![[0; 2]; possible as usize];
                lists.for_each(|(key, list)| all[key as usize] = list);
                Lists::All(all.into())
            }
            _ => Lists::Few(lists.map(|(key, list)| (spread(key), list)).collect()),
        };
        Ok(Context { of, lists, entries: tokens.into_iter().zip(values).collect() })
    }

    /// The entries for a flow's tokens: from one on, to another.
    #[inline]
    pub(super) fn find(&self, tokens: &[f32]) -> [u32; 2] {
        let key = Variable::key(self.of.iter().map(|&(at, size)| (tokens[at] as u32, size)));
        let list = match &self.lists {
            Lists::All(lists) => lists.get(key as usize),
            Lists::Few(lists) => lists.get(&spread(key)),
        };
        list.copied().unwrap_or_default()
    }

    /// Adds what [`Context::find`] found to a row's logits.
    #[inline]
    pub(super) fn add(&self, [begin, end]: [u32; 2], logits: &mut [[f32; LANES]], lane: usize) {
        for &(token, value) in &self.entries[begin as usize..end as usize] {
            logits[token as usize][lane] += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_get_what_their_context_tells() {
        let of = || vec![(0, 3), (2, 4)];
        let tables = [vec![1, 7], vec![2, 3], vec![0, 2, 1]];
        // Keys in a list, and ones that are looked for.
        for of in [of(), vec![(0, 3_000), (2, 4)]] {
            let context = Context::new(of, 3, tables.clone(), vec![0.5, 1.0, 2.0]).unwrap();
            let add = |tokens: [f32; 3]| {
                let mut logits = [[1.0; LANES]; 3];
                context.add(context.find(&tokens), &mut logits, 5);
                assert!(logits.iter().all(|logits| logits[4] == 1.0 && logits[6] == 1.0));
                logits.map(|logits| logits[5])
            };
            assert_eq!(add([0.0, 9.0, 1.0]), [1.5, 1.0, 2.0]);
            assert_eq!(add([1.0, 9.0, 2.0]), [1.0, 3.0, 1.0]);
            assert_eq!(add([2.0, 9.0, 2.0]), [1.0; 3]);
        }
        let wrong: [([Vec<u32>; 3], Vec<f32>); 8] = [
            ([vec![1, 20], vec![2, 3], vec![0, 2, 1]], vec![1.0; 3]),
            ([vec![7, 1], vec![2, 3], vec![0, 2, 1]], vec![1.0; 3]),
            ([vec![1, 7], vec![2], vec![0, 2]], vec![1.0; 2]),
            ([vec![1, 7], vec![0, 3], vec![0, 2, 1]], vec![1.0; 3]),
            ([vec![1, 7], vec![2, 2], vec![0, 2]], vec![1.0; 2]),
            ([vec![1, 7], vec![2, 4], vec![0, 2, 1]], vec![1.0; 3]),
            ([vec![1, 7], vec![2, 3], vec![0, 2, 3]], vec![1.0; 3]),
            ([vec![1, 7], vec![2, 3], vec![0, 2, 1]], vec![1.0, f32::NAN, 1.0]),
        ];
        for (tables, values) in wrong {
            let text = format!("{tables:?}");
            assert!(Context::new(of(), 3, tables, values).is_err(), "{text}");
        }
    }
}
