//! The names of the rules, as files and verdicts write them.

pub use lab::rule::{DEADLOCK, FREED_TABLE, LIVELOCK, STALE_TLB, USER};

/// Code uses a frame number that no entry of that address ever held (a torn mixture), or takes for a table what never was one.
pub const PHANTOM_FRAME: &str = "phantom-frame";
/// Fast GUP returns a page that the address did not map at any moment of the call.
pub const WRONG_PAGE: &str = "wrong-page";
/// Fast GUP touches the record of a page of a special (driver) mapping.
pub const SPECIAL_PINNED: &str = "special-pinned";
/// A frame is freed while a user of GUP holds a reference to it.
pub const PINNED_FREED: &str = "pinned-freed";
/// A store reached a page, and no dirty bit or flag remembers it.
pub const LOST_DIRTY: &str = "lost-dirty";
/// Software overwrote an accessed or dirty bit that the hardware set meanwhile.
pub const LOST_ACCESSED_DIRTY: &str = "lost-accessed-dirty-update";
/// A reference, pin or map count is wrong when all is quiet.
pub const LOST_COUNT: &str = "lost-count";

/// When all is quiet, an entry of a shared area maps a page that is no longer in its file.
pub const STALE_ENTRY: &str = "stale-entry";
/// Memory that has failed and was taken out of use is accessed, or mapped when all is quiet.
pub const FAILED_MEMORY: &str = "failed-memory";
/// When all is quiet, a frame is mapped as anonymous memory and as a file's, and page_table_check has said nothing.
pub const MISSED_DOUBLE_USE: &str = "missed-double-use";

/// Every rule that is held.
pub const ALL: [&str; 15] = [
    PHANTOM_FRAME,
    WRONG_PAGE,
    SPECIAL_PINNED,
    FREED_TABLE,
    STALE_TLB,
    PINNED_FREED,
    LOST_DIRTY,
    LOST_ACCESSED_DIRTY,
    LOST_COUNT,
    STALE_ENTRY,
    FAILED_MEMORY,
    MISSED_DOUBLE_USE,
    DEADLOCK,
    LIVELOCK,
    USER,
];
