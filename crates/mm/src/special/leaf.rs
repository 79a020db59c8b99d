//! What a driver asks to be inserted.

use machine::Access;
use machine::addr::Frame;
use pagetable::{Attributes, Cache, Flags, Level, Rights};

use crate::area::{Area, AreaRights};

/// A leaf that maps frames of a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PfnLeaf {
    /// How large: 4 KiB, 2 MiB, 1 GiB.
    pub level: Level,
    /// The first frame, aligned to the size.
    pub frame: Frame,
    /// What the entry allows at most; never more than the area does. A driver that tracks dirtying maps for reading first.
    pub rights: AreaRights,
    /// How the CPU caches the frames.
    pub cache: Cache,
}

impl PfnLeaf {
    /// A leaf that allows what its area allows, cached as ordinary memory is.
    pub const fn new(level: Level, frame: Frame) -> Self {
        Self { level, frame, rights: AreaRights::ReadWrite, cache: Cache::WRITE_BACK }
    }

    /// The same with at most these rights.
    #[must_use]
    pub const fn with_rights(self, rights: AreaRights) -> Self {
        Self { rights, ..self }
    }

    /// The same, cached in this way.
    #[must_use]
    pub const fn with_cache(self, cache: Cache) -> Self {
        Self { cache, ..self }
    }

    /// Whether the entry, in this area, allows the access.
    pub(crate) const fn allows(&self, area: &Area, access: Access) -> bool {
        self.rights.allow(access) && area.rights.allow(access)
    }

    /// What the entry says besides its frame, if it is made because of such an access.
    pub(crate) const fn attributes(&self, area: &Area, access: Access) -> Attributes {
        let (rights, soft_dirty) = if self.allows(area, Access::Write) {
            (Rights::USER.and(Rights::WRITE), Flags::soft_dirty(self.level))
        } else {
            (Rights::USER, Flags::NONE)
        };
        let attributes = Attributes::new(rights).with_protection_key(area.key).with_cache(self.cache);
        attributes.with(touched(access).and(soft_dirty))
    }
}

/// Accessed, and dirty for a write: software sets them, to save the hardware a locked access a moment later.
pub(crate) const fn touched(access: Access) -> Flags {
    match access {
        Access::Read => Flags::ACCESSED,
        Access::Write => Flags::ACCESSED_DIRTY,
    }
}
