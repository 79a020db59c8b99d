//! Steps of a merge of equal pages.

use mm::guard::{MergeFlush, UserCount};
use mm::{FolioFlags, Guards};
use pagetable::{Entry, Flags};

/// A page that others are going to map stays exclusive.
pub(in crate::kernel) struct KeptPageShared;

impl Guards for KeptPageShared {
    fn share_kept_page(&self, _: impl FnOnce()) {}
}

/// Nobody holds the page that a merge keeps.
pub(in crate::kernel) struct KeptPageHold;

impl Guards for KeptPageHold {
    fn hold_kept_page(&self) -> mm::guard::KeptPageHold {
        mm::guard::KeptPageHold::Never
    }
}

/// A merge looks for users first and clears the entry second.
pub(in crate::kernel) struct CountAfterClear;

impl Guards for CountAfterClear {
    fn user_count(&self) -> UserCount {
        UserCount::BeforeClear
    }
}

/// A merge compares while TLBs may still lead to the page.
pub(in crate::kernel) struct FlushBeforeCompare;

impl Guards for FlushBeforeCompare {
    fn merge_flush(&self, _: Entry) -> MergeFlush {
        MergeFlush::BeforeReplacing
    }
}

/// A merge takes a read-only entry for a sign that nobody can write: Linux before b3a81d0841a9.
pub(in crate::kernel) struct ReadOnlyFlush;

impl Guards for ReadOnlyFlush {
    fn merge_flush(&self, cleared: Entry) -> MergeFlush {
        if cleared.has(Flags::WRITE) { MergeFlush::BeforeComparing } else { MergeFlush::BeforeReplacing }
    }
}

/// Forks go on while a merge counts references and mappings: Linux.
pub(in crate::kernel) struct ForkWait;

impl Guards for ForkWait {
    fn forks_wait_for_count(&self) -> bool {
        false
    }
}

/// A merge counts mappings first and references second: Linux says nothing of the order.
pub(in crate::kernel) struct ReferencesFirst;

impl Guards for ReferencesFirst {
    #[track_caller]
    fn count_users(&self, references: impl FnOnce() -> u32, mappings: impl FnOnce() -> u32) -> (u32, u32) {
        let mappings = mappings();
        (references(), mappings)
    }
}

/// A fault looks whether a page was merged, and then whether anybody else uses it.
pub(in crate::kernel) struct MergedAskedLast;

impl Guards for MergedAskedLast {
    #[track_caller]
    fn is_only_user_of_unmerged(&self, is_only_user: impl FnOnce() -> bool, is_merged: impl FnOnce() -> bool) -> bool {
        !is_merged() && is_only_user()
    }
}

/// A merge takes no folio lock.
pub(in crate::kernel) struct MergeLock;

impl Guards for MergeLock {
    fn merge_lock(&self) -> mm::guard::MergeLock {
        mm::guard::MergeLock::Never
    }
}

/// A merge does not look whether the memory of its pages has failed.
pub(in crate::kernel) struct PoisonCheck;

impl Guards for PoisonCheck {
    fn flags_against_merge(&self, flags: FolioFlags) -> FolioFlags {
        flags.without(FolioFlags::POISONED)
    }
}
