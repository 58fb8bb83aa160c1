//! Which of a joint head's combinations a record can have: what flows of its kind have, in
//! an order in which flows have them.

use ns_model_format::autoregressive::{Autoregressive, Head, RecordSays, Says};

use super::set::{Order, Set};
use crate::hashed::{HashedMap, hash};

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
    /// So many records to come are as good as any more where all of the set has been.
    enough: u32,
}

/// Numbers that all heads of a worker remember lists with: 1 MiB.
const MOST_REMEMBERED: usize = 1 << 18;
/// Numbers that one takes beside its key and tokens: where these are, twice in the map, which
/// may be half empty.
const BESIDE: usize = 12;

/// Which combinations there were found to be, by all that a record's depend on: most flows
/// take one of a few ways.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Numbers that may be held.
    most: usize,
    places: HashedMap<u32>,
    keys: Vec<u32>,
    /// Where each one's tokens begin and end; of all tokens, nothing.
    lists: Vec<Option<(u32, u32)>>,
    tokens: Vec<u32>,
    key: Vec<u32>,
}

impl Found {
    /// Of one of so many heads.
    pub(super) fn new(heads: usize) -> Found {
        Found {
            most: MOST_REMEMBERED / heads.max(1),
            places: HashedMap::default(),
            keys: Vec::new(),
            lists: Vec::new(),
            tokens: Vec::new(),
            key: Vec::new(),
        }
    }

    /// The tokens for a key, found by `find` if they were not before.
    #[inline(always)]
    fn get(&mut self, find: impl FnOnce(&mut Vec<u32>) -> bool) -> Option<&[u32]> {
        let hash = hash(self.key.iter().copied());
        let width = self.key.len();
        let place = self.places.get(&hash).copied();
        let place = match place {
            Some(place) if self.keys[place as usize * width..][..width] == self.key => place,
            _ => self.find(hash, find),
        };
        let (from, to) = self.lists[place as usize]?;
        Some(&self.tokens[from as usize..to as usize])
    }

    #[cold]
    fn find(&mut self, hash: u64, find: impl FnOnce(&mut Vec<u32>) -> bool) -> u32 {
        if self.keys.len() + self.tokens.len() + BESIDE * self.lists.len() > self.most {
            self.places.clear();
            self.keys.clear();
            self.lists.clear();
            self.tokens.clear();
        }
        let (place, from) = (self.lists.len() as u32, self.tokens.len() as u32);
        let some = find(&mut self.tokens);
        self.lists.push(some.then_some((from, self.tokens.len() as u32)));
        self.keys.extend_from_slice(&self.key);
        self.places.insert(hash, place);
        place
    }
}

/// What a record is like, as far as its combination depends on it.
struct State<'a> {
    before: Option<usize>,
    given: usize,
    support: usize,
    seen: u32,
    /// Whether it begins anew once more, if that is planned.
    more: Option<bool>,
    /// Whether something else has come since it began.
    other: bool,
    over: &'a [f32],
    /// Records to come, this one too, or as many of them as are enough.
    left: u32,
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
        let sets: Vec<Set> = sets.iter().map(|set| Set::new(set, &kinds, &order)).collect();
        let room: Vec<Option<u32>> = (0..count).map(room).collect();
        let rooms = room.iter().flatten().filter(|room| **room < u32::MAX);
        let rooms = rooms.map(|room| room.saturating_add(2));
        let enough = rooms.max().unwrap_or(2);
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
            room,
            over,
            words,
            sets,
            begins,
            kinds,
            enough,
        }
    }

    /// The tokens there are; `None` for all. `left` records are to come, this one too.
    #[inline(always)]
    pub(super) fn allowed<'a>(
        &self,
        gates: &[f32],
        before: Option<usize>,
        progress: &[f32],
        left: u32,
        found: &'a mut Found,
    ) -> Option<&'a [u32]> {
        let [seen, begun, over @ ..] = &progress[self.from..self.from + BEFORE_OVER + self.words]
        else {
            return None;
        };
        let [given, support, again] = [0, 1, 2].map(|at| gates[self.given + at]);
        let (support, seen) = (support as usize, *seen as u32);
        let enough = self.sets.get(support).map_or(0, |set| set.enough(set.all() & !seen));
        let (times, other) = (*begun as u32 / 2, *begun as u32 % 2);
        // The last token leaves open how often.
        let more = self.again.map(|most| again >= most || (times as f32) < again);
        let state = State {
            before,
            given: given as usize,
            support,
            seen,
            more,
            other: other > 0,
            over,
            left: left.min(enough.max(self.enough)),
        };
        let before = before.map_or(0, |before| 1 + before as u32);
        let more = more.map_or(2, u32::from);
        found.key.clear();
        found.key.extend([before, given as u32, support as u32, seen]);
        found.key.extend([more << 1 | other, state.left]);
        found.key.extend(over.iter().map(|&word| word as u32));
        let list = found.get(|tokens| self.find(&state, tokens));
        debug_assert!({
            let mut tokens = Vec::new();
            let some = self.find(&State { left, ..state }, &mut tokens);
            list == some.then_some(&tokens[..])
        });
        list
    }

    /// Adds them to `tokens`; or nothing and `false`, if there are all.
    fn find(&self, state: &State<'_>, tokens: &mut Vec<u32>) -> bool {
        let &State { before, given, support, seen, more, other, over, left } = state;
        let list = match before {
            None => self.first.get(given),
            Some(before) => {
                let lists = self.later.get(given);
                lists.and_then(|lists| lists.get(before).or_else(|| lists.first()))
            }
        };
        let list = list.filter(|list| !list.is_empty());
        let is_over = |at: usize| {
            over.get(at / BITS).is_some_and(|word| *word as u32 >> (at % BITS) & 1 == 1)
        };
        let from = tokens.len();
        let set = self.sets.get(support).map(|set| (set, set.all() & !seen));
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
                match list {
                    Some(list) => tokens.extend(list.iter().copied().filter(fits)),
                    None => tokens.extend((0..self.combinations.len() as u32).filter(fits)),
                }
                if tokens.len() > from {
                    return true;
                }
            }
        }
        tokens.extend(list.into_iter().flatten());
        list.is_some()
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
        if begins != (*begun as u32).is_multiple_of(2) {
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
