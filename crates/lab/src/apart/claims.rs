//! Whose a state is: whoever claims it first.

use crate::visited::{Fingerprints, Visited};

/// Fingerprints of states that members of a search have claimed. Each member keeps those that are its own to answer for: [`Claims::keeper`].
pub struct Claims {
    visited: Visited,
    fingerprints: Fingerprints,
    states: u64,
}

impl Claims {
    /// None yet.
    #[must_use]
    pub fn new(fingerprints: Fingerprints) -> Self {
        Self { visited: Visited::new(fingerprints), fingerprints, states: 0 }
    }

    /// Which of so many members answers for a state.
    #[must_use]
    #[inline]
    pub fn keeper(fingerprint: u128, members: usize) -> usize {
        // A set finds a state's place by the upper half, and its segment by the lowest bits.
        ((u64::from((fingerprint >> 16) as u32) * members as u64) >> 32) as usize
    }

    /// Claims a state. Returns whether nobody had.
    #[inline]
    pub fn claim(&mut self, fingerprint: u128) -> bool {
        let is_new = self.visited.insert(fingerprint);
        self.states += u64::from(is_new);
        is_new
    }

    /// How many states are claimed.
    #[must_use]
    pub fn states(&self) -> u64 {
        self.states
    }

    /// Bytes in use.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.visited.bytes()
    }

    /// What is kept of each.
    #[must_use]
    pub fn fingerprints(&self) -> Fingerprints {
        self.fingerprints
    }

    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = u128> + '_> {
        self.visited.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash;

    #[test]
    fn members_answer_for_as_many_states_each() {
        for members in [1, 2, 3, 7] {
            let mut kept = vec![0; members];
            (0..100_000).for_each(|number| kept[Claims::keeper(hash::spread(number), members)] += 1);
            let fair = 100_000 / members;
            assert!(kept.iter().all(|&states| states > fair * 95 / 100 && states < fair * 105 / 100), "{kept:?}");
        }
    }
}
