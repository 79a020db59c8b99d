//! Of protection keys.

use machine::ProtectionKey;

use crate::space::SpaceId;

/// Why a key was not given out or taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// There is no such address space.
    NoSpace(SpaceId),
    /// Entries of this paging mode have no keys (-ENOSPC).
    NoKeys,
    /// There is no other key (-ENOSPC).
    AllGivenOut,
    /// The key is not given out, or is the default key (-EINVAL).
    NotGivenOut(ProtectionKey),
}
