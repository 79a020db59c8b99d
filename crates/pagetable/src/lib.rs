//! x86 page tables: PAE, 4-level and 5-level; lockless walks, exact accessed and dirty bits.
#![no_std]

pub mod detach;
pub mod entry;
pub mod error;
pub mod level;
pub mod locked;
pub mod map;
pub mod memory;
pub mod mode;
pub mod nonpresent;
pub mod owner;
mod prune;
pub mod publish;
pub mod range;
pub mod read;
pub mod recheck;
pub mod rights;
pub mod software;
mod split;
pub mod table;
pub mod tables;
pub mod walk;
pub mod width;
pub mod write;

pub use detach::{DetachedTable, FlushedTable, NeverLoaded, NobodyWalks};
pub use entry::{BadLeaf, Entry};
pub use error::{AddressError, BadRoot, Malformed, MapError, NotATable, OutOfFrames, WalkError};
pub use level::Level;
pub use locked::{DetachError, Link, LockedTable, Position, Unlinked};
pub use map::{Mapper, Unmapped};
pub use memory::{DirectMap, TableArena, TableMemory, TableSource};
pub use mode::{FiveLevel, FourLevel, LongMode, Mode, Pae, PhysicalWidth, Root};
pub use nonpresent::{
    Marker, Migration, MigrationAccess, NonPresent, ProtNone, Swap, SwapDevice, SwapFlags, SwapOffset,
};
pub use owner::{Live, Offline, Ownership};
pub use publish::{Publish, ZeroThenLink};
pub use range::Passed;
pub use read::{Cmpxchg8b, EntryRead, LowHighLow, ReadOnce, SequenceRead};
pub use recheck::{Recheck, Rechecked};
pub use rights::{Attributes, Cache, Flags, Rights};
pub use software::Mark;
pub use table::{Pdpt, Slot, Table, TableFrame, TableMeta};
pub use tables::Tables;
pub use walk::{Path, Translation};
pub use width::{Split, Wide, Width};
pub use write::{EntryWrite, Sequenced, TwoStep, Whole, Xchg64};
