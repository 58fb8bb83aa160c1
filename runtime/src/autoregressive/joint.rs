//! Which of a joint head's combinations a record can have: what flows of its kind have, in
//! an order in which flows have them.

use ns_model_format::autoregressive::{Autoregressive, Head, RecordSays, Says};

use super::set::{Order, Set};

/// Bits that a float32 keeps, which is what is kept of a flow.
const BITS: usize = f32::MANTISSA_DIGITS as usize;

/// Whether a head says several fields at once.
pub(super) fn is_joint(head: &Head) -> bool {
    matches!(head.says, RecordSays::Joint { .. })
}

/// A head's tokens in a row of gates: what it is given, its support, how often it begins anew.
pub(super) const GIVEN: usize = 3;
/// What is kept before the combinations that cannot come any more.
const BEFORE_OVER: usize = 2;

/// What is kept of a flow for a head: as bits, which of its support there were; twice how often it
/// began anew, and one if it may again, since something else has come; as bits, which combinations
/// cannot come any more.
pub(super) fn progress(head: &Head) -> usize {
    match &head.says {
        RecordSays::Joint { since, .. } => BEFORE_OVER + since.len().div_ceil(BITS),
        _ => 0,
    }
}

/// A joint head's combinations.
#[derive(Clone, Debug)]
pub(super) struct Joint {
    /// Where its [`GIVEN`] tokens are in a row of gates.
    given: usize,
    /// How often flows begin anew at most, if that is planned.
    again: Option<f32>,
    /// Where in the progress its own begins.
    from: usize,
    pub(super) combinations: Vec<Vec<u32>>,
    first: Vec<Vec<u32>>,
    /// For each given token: for each combination before, or one list for all.
    later: Vec<Vec<Vec<u32>>>,
    /// For each combination, how many records can come after it until something begins anew;
    /// `None` if it is only ever a flow's last.
    room: Vec<Option<u32>>,
    /// Whether a combination begins anew.
    begins: Vec<bool>,
    /// For each combination, those that cannot come after it, as bits of [`Self::words`]
    /// numbers each.
    over: Vec<u32>,
    words: usize,
    /// The kind of each combination, and which kinds a flow has, by its support's token.
    kinds: Vec<u32>,
    sets: Vec<Set>,
}

/// What a combination must be to be drawn, from what flows are like to what is possible.
#[derive(Clone, Copy)]
struct Rules {
    /// Nothing before it keeps it from coming, and a record can come after it if one does.
    orderly: bool,
    keeps: Keeps,
    /// It is of what has not been yet, if there is no room for anything else.
    must: bool,
}

/// What of the flow's set has not been yet, after a combination.
#[derive(Clone, Copy, PartialEq)]
enum Keeps {
    /// There is a way to all of it, in as many records as are left.
    InTime,
    /// All of it can come, if need be after something that begins anew.
    Open,
    Nothing,
}

const RULES: [Rules; 6] = [
    Rules { orderly: true, keeps: Keeps::InTime, must: true },
    Rules { orderly: true, keeps: Keeps::Open, must: true },
    Rules { orderly: true, keeps: Keeps::Nothing, must: true },
    Rules { orderly: true, keeps: Keeps::Nothing, must: false },
    Rules { orderly: false, keeps: Keeps::Nothing, must: true },
    Rules { orderly: false, keeps: Keeps::Nothing, must: false },
];

impl Joint {
    /// Of the model's head `at`; `given` is where in the gates its tokens are, `from` where
    /// in the progress what it keeps.
    pub(super) fn new(model: &Autoregressive, at: usize, given: usize, from: usize) -> Joint {
        let support = model.support(at).map(|variable| &model.attributes[variable].says);
        let (kinds, sets) = match support {
            Some(Says::Support { kinds, sets, .. }) => (kinds.clone(), sets.clone()),
            _ => (Vec::new(), Vec::new()),
        };
        let none: [Vec<Vec<u32>>; 5] = Default::default();
        let none_of = [const { Vec::new() }; 2];
        let ([combinations, first, later, after, since], [begin, room]) = match &model.heads[at]
            .says
        {
            RecordSays::Joint {
                combinations, first, later, after, since, begins, room, ..
            } => ([combinations, first, later, after, since], [begins, room]),
            _ => (none.each_ref(), none_of.each_ref()),
        };
        let count = combinations.len();
        let mut begins = vec![false; count];
        begin.iter().for_each(|&token| begins[token as usize] = true);
        let room = |token: usize| match after.get(token).map(Vec::is_empty) {
            Some(true) => None,
            _ => Some(room.get(token).copied().unwrap_or(u32::MAX)),
        };
        let words = since.len().div_ceil(BITS);
        let mut over = vec![0; since.len() * words];
        for (possible, over) in since.iter().zip(over.chunks_exact_mut(words.max(1))) {
            for token in (0..count).filter(|&t| possible.binary_search(&(t as u32)).is_err()) {
                over[token / BITS] |= 1 << (token % BITS);
            }
        }
        let order = Order::new(after, since, begin);
        let again = model.again(at).and_then(|variable| match model.attributes[variable].says {
            Says::Again { most, .. } => Some(most as f32),
            _ => None,
        });
        Joint {
            given,
            again,
            from,
            combinations: combinations.clone(),
            first: first.clone(),
            later: successors(later, after),
            room: (0..count).map(room).collect(),
            over,
            words,
            sets: sets.iter().map(|set| Set::new(set, &kinds, &order)).collect(),
            begins,
            kinds,
        }
    }

    /// The tokens there are; `None` for all. `left` records are to come, this one too.
    pub(super) fn allowed<'a>(
        &'a self,
        gates: &[f32],
        before: Option<usize>,
        progress: &[f32],
        left: u32,
        some: &'a mut Vec<u32>,
    ) -> Option<&'a [u32]> {
        let given = gates[self.given] as usize;
        let list = match before {
            None => self.first.get(given),
            Some(before) => {
                let lists = self.later.get(given);
                lists.and_then(|lists| lists.get(before).or_else(|| lists.first()))
            }
        };
        let list = list.filter(|list| !list.is_empty());
        let support = gates[self.given + 1] as usize;
        let kept = &progress[self.from..self.from + BEFORE_OVER + self.words];
        let [seen, begun, over @ ..] = kept else {
            return list.map(Vec::as_slice);
        };
        // Whether it begins anew once more: the last token leaves open how often.
        let planned = self.again.map(|most| (gates[self.given + 2], most));
        let (begun, other) = ((begun / 2.0).floor(), begun % 2.0 > 0.0);
        let more = planned.map(|(again, most)| again >= most || begun < again);
        let is_over = |at: usize| {
            over.get(at / BITS).is_some_and(|word| *word as u32 >> (at % BITS) & 1 == 1)
        };
        let set = self.sets.get(support).map(|set| (set, set.all() & !(*seen as u32)));
        // A set of which nothing may come does not count.
        for set in [set, None] {
            let is_plain = |rules: &&Rules| rules.keeps == Keeps::Nothing && !rules.must;
            for rules in RULES.iter().filter(|rules| set.is_some() || is_plain(rules)) {
                let fits = |token: &u32| {
                    let at = *token as usize;
                    let has_room = |room| more == Some(true) || left - 1 <= room;
                    let ends = left > 1 && !self.room[at].is_some_and(has_room);
                    let anew = more == Some(false) && other && self.begins[at];
                    !(rules.orderly && (ends || anew || is_over(at)))
                        && set.is_none_or(|set| self.is_of(set, at, left, *rules))
                };
                some.clear();
                match list {
                    Some(list) => some.extend(list.iter().copied().filter(fits)),
                    None => some.extend((0..self.combinations.len() as u32).filter(fits)),
                }
                if !some.is_empty() {
                    return Some(some);
                }
            }
        }
        list.map(Vec::as_slice)
    }

    /// Whether a combination is of a set, of which these have not been yet, and what the rules
    /// say of that.
    fn is_of(&self, (set, unseen): (&Set, u32), at: usize, left: u32, rules: Rules) -> bool {
        let Some(bit) = set.bit(self.kinds.get(at)) else { return false };
        let after = unseen & !(1 << bit);
        // What has not been yet has to be when there is no more room for anything else.
        let must = rules.must && unseen.count_ones() >= left;
        let keeps = match rules.keeps {
            Keeps::InTime => set.has_time(at, after, left.saturating_sub(1)),
            Keeps::Open => set.is_open(at, after),
            Keeps::Nothing => true,
        };
        (!must || after != unseen) && keeps
    }

    /// Notes that a token was drawn.
    pub(super) fn note(&self, token: u32, gates: &[f32], progress: &mut [f32]) {
        let set = self.sets.get(gates[self.given + 1] as usize);
        if let Some(bit) = set.and_then(|set| set.bit(self.kinds.get(token as usize))) {
            progress[self.from] = (progress[self.from] as u32 | 1 << bit) as f32;
        }
        let over = self.over.chunks_exact(self.words.max(1)).nth(token as usize);
        let begins = self.begins.get(token as usize) == Some(&true);
        let begun = &mut progress[self.from + 1];
        // Beginning anew, or something else after a beginning.
        if begins == (*begun % 2.0 > 0.0) {
            *begun += 1.0;
        }
        for (kept, over) in progress[self.from + BEFORE_OVER..].iter_mut().zip(over.unwrap_or(&[]))
        {
            let before = if begins { 0 } else { *kept as u32 };
            *kept = (before | over) as f32;
        }
    }
}

/// For each given token, for each combination before, what is in both lists, unless nothing
/// is; one list of each where nothing is known of what is before.
fn successors(later: &[Vec<u32>], after: &[Vec<u32>]) -> Vec<Vec<Vec<u32>>> {
    let both = |list: &Vec<u32>, after: &Vec<u32>| -> Vec<u32> {
        let both: Vec<u32> =
            list.iter().copied().filter(|at| after.binary_search(at).is_ok()).collect();
        if both.is_empty() { list.clone() } else { both }
    };
    let of_given = |list: &Vec<u32>| match after.is_empty() {
        true => vec![list.clone()],
        false => after.iter().map(|after| both(list, after)).collect(),
    };
    later.iter().map(of_given).collect()
}
