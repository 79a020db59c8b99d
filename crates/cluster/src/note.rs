//! What members say of an epoch. When it has passed, all have heard the same, and come to the same conclusions.

use lab::{Counts, Trouble};
use serde::{Deserialize, Serialize};

/// What is known of words of memory: a unit, and bits of the lab's.
pub(crate) type Words = Vec<(u32, u32)>;

/// What a member says of an epoch.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Note {
    /// It is ready to begin. The checkpoints that it has, by their numbers; or why it will not begin.
    Ready(Result<Vec<u64>, String>),
    /// The search goes on.
    News(News),
    /// It does nothing more.
    Quiet,
    /// Nothing of its is on its way: what it has come to.
    Settled { counts: Counts, states: u64, bytes: u64, words: Words, trouble: Option<Trouble> },
    /// Whether a checkpoint was written or read, or why not.
    Kept(Result<(), String>),
    /// Member 0: whether the search has to begin again, for what it has learnt of words. Others: nothing.
    Concluded { again: bool, words: Words },
    /// It needs nobody any more.
    Leaving,
}

/// How far a member is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct News {
    /// Something is to be done, or on its way.
    pub(crate) is_busy: bool,
    /// States that it is to go on from.
    pub(crate) pending: u64,
    /// States that it keeps account of.
    pub(crate) states: u64,
    pub(crate) transitions: u64,
    pub(crate) words: Words,
    pub(crate) trouble: Option<Trouble>,
    /// It is time for a checkpoint.
    pub(crate) wants_checkpoint: bool,
}
