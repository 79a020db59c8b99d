//! Memory management on lockless page tables: folios, areas, faults, zap by address and by rmap, TLB shootdown, the life of tables, and
//! fast GUP.
//!
//! The engine is `no_std`, allocates nothing but frames for page tables, and touches shared memory only through [`machine::Cpu`]. So the code that
//! the lab explored is the code that runs in a VMM or a kernel.
//!
//! # Where things are
//!
//! | module | what |
//! |---|---|
//! | [`platform`] | what the engine is told: machine, mode, memory, protocols |
//! | [`mm`] | the memory manager itself |
//! | [`folio`] | frames' records and their counts |
//! | [`area`], [`space`], [`file`](mod@file) | which addresses mean which pages; the way back (rmap) |
//! | `map`, `munmap` | adding and removing areas; changing a file's frames |
//! | `cut` | changing part of an area |
//! | `fault` | from a page fault to an entry |
//! | `fork`, `exit` | the beginning and the end of an address space |
//! | `leaf` | what an entry holds |
//! | `madvise_guard` | pages that nobody may access, without an area of their own |
//! | `mprotect`, `protect` | giving rights to entries and taking them |
//! | `protection_keys` | what threads keep themselves from |
//! | `mremap` | moving areas |
//! | `numa` | hints: which CPU uses which page, found out by faults |
//! | [`tags`] | what user addresses may have in their upper bits |
//! | [`stack`] | areas that grow, and the gap below them |
//! | `soft_dirty`, [`harvest`] | which pages were used, and how |
//! | `huge` | huge pages: split, collapse, shared tables |
//! | `merge` | equal anonymous pages become one, and their own again |
//! | `mapping_dirty` | which pages of a file were written, by rmap |
//! | `kernel_folio` | memory of drivers |
//! | `zap`, `gather` | from an entry to nothing: by address, by area, by rmap |
//! | [`batched_flush`] | flushes that reclaim puts off |
//! | [`reclaim`] | from a folio to its entries; migration, swap |
//! | [`shootdown`], [`lazy`] | making other CPUs' TLBs forget, now or when they come back |
//! | [`lifetime`] | when a detached table may be freed |
//! | [`gup`] | references on user pages, without a lock where possible |
//! | [`table_check`] | counts of entries, to find frames that are mapped twice by mistake |
//! | [`order`] | when flushes happen; who notices special entries |
//! | `ptdump` | how a range is mapped, for people and tools |
//! | [`uffd`] | faults that somebody else resolves |
//! | [`mod@trace`] | who is told what happens |
//! | [`guard`] | the steps that kernels once did without |
//! | [`frames`], [`swap`] | where data lives: memory, and where it goes from there |
//! | [`special`] | drivers' own fault handlers and what they map; device memory |
//! | [`notify`] | devices that translate by a copy of the page table |
//! | [`hmm`] | looking pages up for one |
//!
//! # Locks, outermost first
//!
//! | lock | protects | held by |
//! |---|---|---|
//! | mmap lock (of each part of an address space, [`SpacePart`], the lowest first) | the areas there | `mmap`, `munmap`, stacks that grow (writing); faults, slow GUP (reading) |
//! | folio lock | a folio that is taken apart: its entries, its references, its place in a file | migration, swap-out, split, write-back, [`Mm::replace_page`] |
//! | rmap lock (of a file) | where the file is mapped | `mmap`, `munmap` (writing); zap by rmap (reading) |
//! | driver lock (of a driver's file) | the driver's frames | faults on the file; the driver's revoke |
//! | page-table lock (of a table) | the table's entries and child count, against other software | whoever changes entries |
//!
//! Hardware walkers and fast GUP hold none of them, and who flushes needs none ([`shootdown`]). With interrupts on, a CPU that waits for any of them takes IPIs; the engine never waits with
//! interrupts off.

#![no_std]

pub mod area;
pub mod batched_flush;
mod cut;
pub mod error;
mod exclusive;
mod exit;
mod fault;
pub mod file;
pub mod folio;
mod folio_lock;
mod fork;
pub mod frames;
mod gather;
pub mod guard;
pub mod gup;
pub mod harvest;
pub mod hmm;
mod huge;
mod kernel_folio;
pub mod lazy;
mod leaf;
pub mod lifetime;
mod madvise_guard;
mod map;
mod mapping_dirty;
mod merge;
pub mod mm;
mod mprotect;
mod mremap;
mod munmap;
pub mod notify;
mod numa;
pub mod order;
pub mod platform;
mod populate;
mod protect;
mod protection_keys;
mod ptdump;
pub mod reclaim;
pub mod shootdown;
mod soft_dirty;
pub mod space;
pub mod special;
pub mod stack;
pub mod swap;
pub mod table_check;
pub mod tags;
pub mod trace;
pub mod uffd;
mod zap;

pub use area::{Area, AreaRights, AreaSlot, Growth, HugePages, Sharing};
pub use error::{
    AreaError, CollapseError, FaultError, FolioSplitError, ForkError, GupError, KeyError, MapError, PopulateError,
    RangeError, ReclaimError, ReleaseError, RetractError, ShareError, SplitError, ZapError,
};
pub use file::{File, FileId, FileKind, Mapping, PageSlot};
pub use folio::{FolioFlags, FolioMapping, Membership, MemoryMap, Page, Reference};
pub use frames::{FrameSource, NoFrames};
pub use guard::{Guards, Sound};
pub use gup::{Foll, GatePage, Run, Signal};
pub use harvest::{Harvested, Usage};
pub use hmm::{HmmError, HmmPage, HmmRequest, MirrorCheck, OutOfDate, UpToDate};
pub use lazy::Lazy;
pub use madvise_guard::GuardRegionError;
pub use map::DriverFrames;
pub use merge::MergeInto;
pub use merge::error::{MergeError, UnmergeError, Unmergeable};
pub use mm::{Mm, Parts};
pub use notify::{Invalidations, NobodyListens, Notify};
pub use numa::NumaPlacement;
pub use platform::{Platform, Protocols};
pub use reclaim::Migrated;
pub use shootdown::{Shootdown, Stale};
pub use space::{AddressSpace, PartsError, SpaceId, SpacePart};
pub use special::{
    Attempt, DevicePages, DriverAnswer, DriverFault, DriverFaultContext, FollowError, FollowedPfn, InsertError,
    Inserted, NoDrivers, PfnLeaf,
};
pub use stack::{GrowthError, StackLimits};
pub use swap::{NoSwap, SwapError, SwapPlace, SwapStore};
pub use table_check::TableCheck;
pub use tags::Tags;
pub use trace::{Event, FlushReason, NobodyTraces, Trace};
pub use uffd::{
    NoUffd, UffdError, UffdFault, UffdFillError, UffdHandler, UffdModes, UffdProtection, UffdReason, UffdRegisterError,
};
