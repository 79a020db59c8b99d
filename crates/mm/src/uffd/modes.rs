//! Which faults are handed over.

/// Which faults in an area are handed over: a set (Linux: `UFFDIO_REGISTER_MODE_MISSING`, `_WP`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct UffdModes(u8);

impl UffdModes {
    /// None: the area is not registered.
    pub const NONE: Self = Self(0);
    /// Accesses where nothing is mapped. Private anonymous memory only.
    pub const MISSING: Self = Self(1);
    /// Stores to what [`crate::Mm::uffd_write_protect`] has protected. Anonymous memory, and files in small pages.
    pub const WRITE_PROTECT: Self = Self(2);

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are in the set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any fault is handed over.
    pub(crate) const fn is_registered(self) -> bool {
        self.0 != 0
    }
}
