//! Sets of small numbers of which the lowest is asked for.

/// Bits for the numbers below a limit, and above them, level by level, bits for the words that are not empty: the lowest number is found by one word of each level.
pub(crate) struct NumberSet {
    /// The numbers first. The last level is one word.
    levels: Vec<Vec<u64>>,
}

/// How many bits of a number one level takes.
const BITS: u32 = u64::BITS.trailing_zeros();

impl NumberSet {
    /// An empty set of numbers below `limit`.
    pub(crate) fn below(limit: u64) -> Self {
        let mut levels = Vec::new();
        let mut words = limit;
        loop {
            words = words.div_ceil(u64::from(u64::BITS)).max(1);
            levels.push(vec![0; words as usize]);
            if words == 1 {
                return Self { levels };
            }
        }
    }

    /// # Panics
    /// The number is not below the limit.
    pub(crate) fn insert(&mut self, mut number: u64) {
        for level in &mut self.levels {
            let word = &mut level[(number >> BITS) as usize];
            let was_empty = *word == 0;
            *word |= 1 << (number % u64::from(u64::BITS));
            if !was_empty {
                return;
            }
            number >>= BITS;
        }
    }

    /// Whether it was there. What is not below the limit never is.
    pub(crate) fn remove(&mut self, mut number: u64) -> bool {
        let bit = |number: u64| 1 << (number % u64::from(u64::BITS));
        if self.levels[0].get((number >> BITS) as usize).is_none_or(|word| word & bit(number) == 0) {
            return false;
        }
        for level in &mut self.levels {
            let word = &mut level[(number >> BITS) as usize];
            *word &= !bit(number);
            if *word != 0 {
                break;
            }
            number >>= BITS;
        }
        true
    }

    /// Takes out the lowest.
    pub(crate) fn pop_first(&mut self) -> Option<u64> {
        let mut number = 0;
        for level in self.levels.iter().rev() {
            let word = level[number as usize];
            if word == 0 {
                return None;
            }
            number = number << BITS | u64::from(word.trailing_zeros());
        }
        self.remove(number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::NumberSet;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Insert(u64),
        Remove(u64),
        PopFirst,
    }

    const LIMIT: u64 = 64 * 64 + 100;

    fn op() -> impl Strategy<Value = Op> {
        // Neighbours often, so that words fill up and empty.
        let number = prop_oneof![0..LIMIT, 0..70_u64, LIMIT - 3..LIMIT];
        prop_oneof![number.clone().prop_map(Op::Insert), number.prop_map(Op::Remove), Just(Op::PopFirst)]
    }

    proptest! {
        #[test]
        fn it_does_what_a_set_does(ops in proptest::collection::vec(op(), 1..300), limit in prop_oneof![Just(LIMIT), Just(1), Just(64)]) {
            let (mut set, mut naive) = (NumberSet::below(limit), BTreeSet::new());
            for op in ops {
                match op {
                    Op::Insert(number) if number >= limit => {}
                    Op::Insert(number) => {
                        set.insert(number);
                        naive.insert(number);
                    }
                    Op::Remove(number) => prop_assert_eq!(set.remove(number), naive.remove(&number)),
                    Op::PopFirst => prop_assert_eq!(set.pop_first(), naive.pop_first()),
                }
            }
            prop_assert_eq!(std::iter::from_fn(|| set.pop_first()).collect::<Vec<_>>(), naive.into_iter().collect::<Vec<_>>());
        }
    }
}
