//! Rows that a network would be given the same for: computed once, where there are many.
//!
//! Flows of a batch start at about the same time, and what is drawn first has few values,
//! so that of many flows the first variables of the chain have the same networks' answer.

use crate::hashed::{HashedMap, hash};

/// Rows grouped by what they are given.
#[derive(Debug, Default)]
pub(super) struct Alike {
    /// Groups and rows.
    rows: Vec<(u32, u32)>,
    /// A row of each group.
    firsts: Vec<usize>,
    /// What rows were given, group by group.
    given: Vec<f32>,
    groups: HashedMap<u32>,
}

impl Alike {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.firsts.clear();
        self.given.clear();
        self.groups.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row that is given these values; as many for every row.
    pub(super) fn add(&mut self, row: usize, given: impl Iterator<Item = f32>) {
        let from = self.given.len();
        self.given.extend(given);
        let count = self.given.len() - from;
        let hash = hash(self.given[from..].iter().map(|value| value.to_bits()));
        let new = self.firsts.len() as u32;
        let group = *self.groups.entry(hash).or_insert(new);
        let (before, here) = self.given.split_at(from);
        let is_new = group == new || before[group as usize * count..][..count] != *here;
        let group = if is_new { new } else { group };
        if is_new {
            self.firsts.push(row);
        } else {
            self.given.truncate(from);
        }
        self.rows.push((group, row as u32));
    }

    /// A row of each group; and the groups with their rows, group by group. Each row is one
    /// where few are alike: handing out what few have in common costs more than computing it.
    pub(super) fn groups(&mut self) -> (&[usize], &[(u32, u32)]) {
        if 4 * self.firsts.len() > 3 * self.rows.len() {
            self.firsts.clear();
            for (group, (of, row)) in (0..).zip(&mut self.rows) {
                self.firsts.push(*row as usize);
                *of = group;
            }
        }
        self.rows.sort_unstable();
        (&self.firsts, &self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_all_rows_and_each_is_given_the_same() {
        let mut alike = Alike::default();
        for _ in 0..2 {
            alike.clear();
            assert!(alike.is_empty());
            let given = |row: usize| [(row % 7) as f32, (row % 3) as f32];
            (0..100)
                .filter(|row| row % 5 > 0)
                .for_each(|row| alike.add(row, given(row).into_iter()));
            let (firsts, members) = alike.groups();
            assert_eq!((firsts.len(), members.len()), (21, 80));
            assert!(members.is_sorted());
            for &(group, row) in members {
                assert_eq!(given(row as usize), given(firsts[group as usize]));
            }
        }
        // Rows that are given nothing are alike.
        alike.clear();
        (0..3).for_each(|row| alike.add(row, std::iter::empty()));
        assert_eq!(alike.groups().0, [0]);
        // Of five rows two are, which is too few.
        alike.clear();
        [4, 2, 7, 4, 9].into_iter().zip(10..).for_each(|(given, row)| {
            alike.add(row, std::iter::once(given as f32));
        });
        let (firsts, members) = alike.groups();
        assert_eq!(firsts, [10, 11, 12, 13, 14]);
        assert_eq!(members, [(0, 10), (1, 11), (2, 12), (3, 13), (4, 14)]);
    }
}
