//! When, and for how long: what steps choose from.

/// Whether a fault that reads a page from swap has a count of its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwapPlaceHold {
    /// From before it reads until the page is mapped: the place is not freed meanwhile, and no other page gets it.
    WhileReading,
    /// Never. The place may be freed and used again while it reads: the entry looks the same then, and the old contents are mapped (Linux 13ddaf26be32,
    /// CVE-2024-26759).
    Never,
}

/// For how long a merge holds the page that stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeptPageHold {
    /// From when nobody can write to it until it is mapped in the other place. The reference keeps it from being freed, and a store to it from finding that its entry is the only user (Linux:
    /// the scanner's own, since 31dbd01f3143).
    UntilMapped,
    /// Never. A store in between writes to the page that others are going to have; or it is freed, and used again.
    Never,
}

/// Whether a merge holds the folio locks of its pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MergeLock {
    /// While one is mapped in the place of the other: nobody goes through the mappings of either meanwhile (Linux: `try_to_merge_one_page`, `trylock_page`).
    Held,
    /// Never. Whoever takes the page that stays out wherever it is mapped may be done before it is mapped in another place.
    Never,
}

/// When a merge looks for references to a page that mappings do not explain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserCount {
    /// When its entry is cleared: fast GUP that takes a reference later finds that the entry has changed (Linux: `write_protect_page`).
    AfterClear,
    /// Before. Fast GUP may come in between.
    BeforeClear,
}

/// When a merge flushes the entry that it has cleared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MergeFlush {
    /// Before it compares: nobody writes to what is compared.
    BeforeComparing,
    /// Before another entry takes its place. A store through a stale TLB entry then comes after the comparison.
    BeforeReplacing,
}

/// When a zap takes a folio off its rmap: counts one mapping fewer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RmapRemoval {
    /// Once no CPU can write to it through the mapping: until then write-back must look for mappings, and finds the page-table lock held (Linux
    /// 5df397dec7c4).
    AfterFlush,
    /// As soon as the entry is cleared. A store through a stale TLB entry then comes after the write-back of a folio that seemed unmapped.
    BeforeFlush,
}

/// Whether an unmap takes a table out into which a part of the address space reaches whose mmap lock it does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommonTables {
    /// It stays, until somebody unmaps in all of its parts at once, or the address space ends.
    Stay,
    /// If none of the areas that the unmap can see needs it. Somebody may be filling it for one that it cannot see.
    Go,
}

/// When a file forgets an area that is unmapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileForgets {
    /// When no CPU can reach the file's pages through it any more.
    AfterFlush,
    /// As soon as its entries are cleared. A zap by rmap then does not find it, and returns though TLBs still lead to the pages (Linux before
    /// b67fbebd4cf9, CVE-2022-39188).
    BeforeFlush,
}

/// For how long a driver that revokes keeps its own faults out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriverLock {
    /// From before the zap until its frames have changed.
    WholeRevoke,
    /// While its frames change. A fault between the zap and the change maps the old frame again.
    ChangeOnly,
}
