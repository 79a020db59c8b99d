//! The sub-commands, one file each.

pub(crate) mod boot;
pub(crate) mod check;
pub(crate) mod merge;
pub(crate) mod needed;
pub(crate) mod races;
pub(crate) mod replay;
pub(crate) mod seed;
pub(crate) mod sweep;
