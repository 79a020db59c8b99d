//! States that a member has claimed lately: most of what it comes to it has come to a moment ago.

/// How many are remembered.
const SLOTS: usize = 1 << 17;

/// Fingerprints. One takes the place of another: whatever is forgotten is asked once more.
pub(crate) struct Recent(Box<[u128]>);

impl Recent {
    pub(crate) fn new() -> Self {
        Self(vec![0; SLOTS].into_boxed_slice())
    }

    pub(crate) fn forget(&mut self) {
        self.0.fill(0);
    }

    /// Whether it is not remembered; from now on it is.
    pub(crate) fn is_new(&mut self, fingerprint: u128) -> bool {
        let slot = &mut self.0[(fingerprint >> 72) as usize % SLOTS];
        let is_new = *slot != fingerprint || fingerprint == 0;
        *slot = fingerprint;
        is_new
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}
