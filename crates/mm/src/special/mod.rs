//! Special mappings: frames of drivers in user page tables, with page records or without.
//!
//! | module | what |
//! |---|---|
//! | `leaf` | what a driver asks to be inserted |
//! | `driver` | a driver's own fault handler, and what it may do |
//! | `fault` | from a page fault to the driver's handler, level by level |
//! | `frames` | which frames a driver may map |
//! | `insert` | one leaf, under the page-table lock |
//! | `prefault` | neighbouring pages, one lock a table |
//! | `remap` | a whole area at once |
//! | `follow` | reading what is mapped, for virtual machines and the like |
//! | `walk` | walks of those who know small pages only |
//! | `device` | page records that can be taken away again |
//!
//! # Two kinds of file
//!
//! A *PFN-mapped* file ([`crate::FileKind::PfnMapped`], and the simple [`crate::FileKind::Driver`]) is mapped by special entries only, whether its frames have
//! records or not: no counts, and no GUP. A *mixed* file ([`crate::FileKind::Mixed`]) is mapped by ordinary, counted entries where frames have records and by
//! special ones elsewhere (Linux: VM_PFNMAP and VM_MIXEDMAP, of which an area has one or the other).
//!
//! # Who keeps the frames
//!
//! Nobody but the driver: special entries hold no references. It revokes ([`crate::Mm::unmap_mapping`]) before it gives a frame to somebody else, and holds off
//! its own fault handler meanwhile.

mod device;
mod driver;
mod fault;
mod follow;
mod frames;
mod insert;
mod leaf;
mod prefault;
mod remap;
mod walk;

pub use device::{DevicePages, DeviceState, KillError};
pub use driver::{Attempt, DriverAnswer, DriverFault, DriverFaultContext, NoDrivers};
pub use follow::{FollowError, FollowedPfn, Special};
pub use insert::{InsertError, Inserted};
pub use leaf::PfnLeaf;
pub use walk::SmallEntryError;
