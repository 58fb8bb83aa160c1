//! What all a flow has of its records, and whether there is time for it: a connection that closes
//! on both sides needs some records for that, in some order.

/// The kinds that a flow has, and how many records it takes to have them.
#[derive(Clone, Debug)]
pub(super) struct Set {
    kinds: Vec<u32>,
    /// For each combination, the kinds of the set that can come after it, as bits; also after
    /// something that begins anew.
    open: Vec<u32>,
    from_combinations: Ways,
    from_kinds: Ways,
    /// The most steps of all.
    furthest: u32,
}

/// What can come after combinations, or kinds, each as much as its combinations say at most.
#[derive(Clone, Debug)]
struct Ways {
    /// Which kinds of the set, as bits.
    reach: Vec<u32>,
    /// The fewest records to each kind of the set, 1 for the next.
    steps: Vec<u8>,
}

/// No number of records leads there.
const NEVER: u8 = u8::MAX;
/// Parts of ways that are looked at before it is taken that there is one.
const MOST_LOOKS: u32 = 256;

/// Which combinations come after which, of all flows.
pub(super) struct Order<'a> {
    since: &'a [Vec<u32>],
    begins: &'a [u32],
    /// Whether something can begin anew after each.
    anew: Vec<bool>,
    /// What comes right after each, and what at any time; nothing where that is not known.
    next: Vec<Tokens>,
    later: Vec<Tokens>,
}

impl<'a> Order<'a> {
    pub(super) fn new(after: &[Vec<u32>], since: &'a [Vec<u32>], begins: &'a [u32]) -> Order<'a> {
        let bits = |lists: &[Vec<u32>]| lists.iter().map(|list| Tokens::of(list)).collect();
        let (next, later): (_, Vec<Tokens>) = (bits(after), bits(since));
        let begin = Tokens::of(begins);
        let anew = later.iter().map(|later| later.meets(&begin)).collect();
        Order { since, begins, anew, next, later }
    }
}

impl Set {
    /// `kinds` are those of all combinations.
    pub(super) fn new(set: &[u32], kinds: &[u32], order: &Order<'_>) -> Set {
        let Order { since, begins, anew, .. } = order;
        let bits: Vec<Option<usize>> =
            kinds.iter().map(|kind| set.iter().position(|of| of == kind)).collect();
        let bit_of = |&token: &u32| bits.get(token as usize).copied().flatten();
        let direct =
            |list: &Vec<u32>| list.iter().filter_map(bit_of).fold(0, |all, b| all | 1 << b);
        let reach: Vec<u32> = since.iter().map(direct).collect();
        let begun = begins.iter().filter_map(|&token| reach.get(token as usize));
        let begun = begun.fold(0, |all, bits| all | bits);
        let open = |(reach, anew): (&u32, &bool)| if *anew { reach | begun } else { *reach };
        let open = reach.iter().zip(anew).map(open).collect();
        let from_combinations = Ways { reach, steps: steps(&bits, set.len(), order) };
        let from_kinds = from_combinations.of_kinds(&bits, set.len());
        let furthest = from_combinations.steps.iter().filter(|steps| **steps < NEVER).max();
        let furthest = furthest.copied().unwrap_or(1).into();
        Set { kinds: set.to_vec(), open, from_combinations, from_kinds, furthest }
    }

    /// All of its kinds, as bits.
    pub(super) fn all(&self) -> u32 {
        ((1_u64 << self.kinds.len()) - 1) as u32
    }

    /// So many records to come, the next one too, are as good as any more where these kinds
    /// have not been yet.
    pub(super) fn enough(&self, unseen: u32) -> u32 {
        2 + unseen.count_ones() * self.furthest.max(1)
    }

    /// Where in the set a kind is.
    pub(super) fn bit(&self, kind: Option<&u32>) -> Option<usize> {
        self.kinds.iter().position(|of| Some(of) == kind)
    }

    /// Whether each of these kinds can come after a combination, if need be after something
    /// that begins anew.
    pub(super) fn is_open(&self, token: usize, unseen: u32) -> bool {
        unseen & !self.open.get(token).copied().unwrap_or(u32::MAX) == 0
    }

    /// Whether these kinds can all come in so many records after a combination.
    pub(super) fn has_time(&self, token: usize, unseen: u32, left: u32) -> bool {
        self.is_way((&self.from_combinations, token), unseen, left, &mut 0)
    }

    /// Whether there is an order in which they can, from there.
    fn is_way(&self, (ways, at): (&Ways, usize), unseen: u32, left: u32, looks: &mut u32) -> bool {
        let count = unseen.count_ones();
        if count > left || unseen & !ways.reach.get(at).copied().unwrap_or(u32::MAX) != 0 {
            return false;
        }
        *looks += 1;
        // There is time for any order.
        if count * self.furthest <= left || *looks > MOST_LOOKS {
            return true;
        }
        let mut bits = (0..self.kinds.len()).filter(|bit| unseen >> bit & 1 == 1);
        bits.any(|bit| {
            let steps = ways.steps[at * self.kinds.len() + bit];
            let left = left.checked_sub(steps.into());
            let rest = unseen & !(1 << bit);
            let go_on = |left| self.is_way((&self.from_kinds, bit), rest, left, looks);
            steps < NEVER && left.is_some_and(go_on)
        })
    }
}

impl Ways {
    /// From the combinations of each kind of a set of so many; `bits` says which these are.
    fn of_kinds(&self, bits: &[Option<usize>], count: usize) -> Ways {
        let (mut reach, mut steps) = (vec![0; count], vec![NEVER; count * count]);
        for (token, bit) in bits.iter().enumerate() {
            let Some(bit) = *bit else { continue };
            reach[bit] |= self.reach.get(token).copied().unwrap_or(u32::MAX);
            let of_kind = steps[bit * count..].iter_mut();
            of_kind.zip(&self.steps[token * count..]).take(count).for_each(|(to, from)| {
                *to = *from.min(to);
            });
        }
        Ways { reach, steps }
    }
}

/// For each combination of a set, the fewest records from one to each of so many kinds: each
/// right after the one before, and of what can come after the first. `bits` says the kinds.
fn steps(bits: &[Option<usize>], count: usize, order: &Order<'_>) -> Vec<u8> {
    // Where nothing is known of what comes after what, anything may be the next.
    if order.next.is_empty() {
        return vec![1; bits.len() * count];
    }
    let of_set: Vec<u32> = (0..).zip(bits).filter(|(_, b)| b.is_some()).map(|(at, _)| at).collect();
    let all = Tokens::of(&of_set);
    let mut steps = vec![NEVER; bits.len() * count];
    for &token in &of_set {
        let steps = &mut steps[token as usize * count..][..count];
        let (mut left, mut now) = (all.clone(), Tokens::of(&[token]));
        if let Some(later) = order.later.get(token as usize) {
            left.keep(later);
        }
        for step in 1..NEVER {
            let mut next = Tokens::default();
            let lists = now.iter().filter_map(|at| order.next.get(at as usize));
            lists.for_each(|list| next.join(list));
            next.keep(&left);
            left.drop(&next);
            if next.is_empty() {
                break;
            }
            for bit in next.iter().filter_map(|at| bits[at as usize]) {
                steps[bit] = steps[bit].min(step);
            }
            now = next;
        }
    }
    steps
}

/// Tokens as bits.
#[derive(Clone, Debug, Default)]
struct Tokens(Vec<u64>);

impl Tokens {
    fn of(tokens: &[u32]) -> Tokens {
        let words = tokens.iter().max().map_or(0, |&most| most as usize / 64 + 1);
        let mut all = Tokens(vec![0; words]);
        tokens.iter().for_each(|&token| all.0[token as usize / 64] |= 1 << (token % 64));
        all
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn meets(&self, other: &Tokens) -> bool {
        self.0.iter().zip(&other.0).any(|(word, of)| word & of != 0)
    }

    fn join(&mut self, other: &Tokens) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(word, of)| *word |= of);
    }

    fn keep(&mut self, other: &Tokens) {
        self.0.truncate(other.0.len());
        self.0.iter_mut().zip(&other.0).for_each(|(word, of)| *word &= of);
    }

    fn drop(&mut self, other: &Tokens) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, of)| *word &= !of);
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        let bits = |(&word, of): (&u64, u32)| {
            let left = std::iter::successors(Some(word), |left| Some(left & left.wrapping_sub(1)));
            let left = left.take_while(|left| *left != 0);
            left.map(move |left| 64 * of + left.trailing_zeros())
        };
        self.0.iter().zip(0..).flat_map(bits)
    }
}
