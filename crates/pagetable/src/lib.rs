//! x86 page tables: PAE, 4-level and 5-level; lockless walks, exact accessed and dirty bits.
//!
//! Everything is generic over the machine ([`machine::Cpu`]): the same code runs on bare metal, on threads and
//! in the lab, and nothing in it allocates, but through a [`TableSource`].
//!
//! # Where to find what
//!
//! | module | what |
//! |---|---|
//! | [`level`], [`mode`], [`width`] | the shape of the tables: levels, paging modes, how wide a plain access is |
//! | [`entry`], [`rights`] | one entry as a value; what a leaf allows and how it is cached |
//! | [`flush`] | whether TLBs must forget an entry that has changed |
//! | [`software`] | the software bits, each with one user per level |
//! | [`nonpresent`] | swap, migration, markers, PROT_NONE |
//! | [`table`], [`memory`] | tables, their metadata, where they lie and where new ones come from |
//! | [`read`], [`write`](mod@write), [`recheck`] | the protocols: how an entry is read, written, compared |
//! | [`publish`] | the protocol by which a new table becomes reachable |
//! | [`walk`] | lockless walks |
//! | [`mod@ptdump`] | what is mapped in a range, for people and tools |
//! | [`tables`], [`locked`], [`locked_range`] | changes while others walk and change: page-table locks |
//! | [`map`], [`range`], [`owner`] | changes by a single owner: pages, ranges, split, prune |
//! | [`detach`] | the end of a table: detached, flushed, freed |
//! | [`error`] | what can be wrong |
//!
//! # What is promised
//!
//! 1. **No accessed or dirty bit is lost.** Whatever takes a present entry away or changes it returns or keeps
//!    the bits as they were at that moment. The precise contract is in [`write`](mod@write).
//! 2. **A table is zeroed before it is reachable**, and freed only after it was detached and flushed.
//! 3. **Every entry is read once** by a walk, and what is decided about it is decided on that copy.
//! 4. **Whether a table is empty is a count**, never a scan.
//! 5. **Malformed tables are errors** that name level, entry, bits and address. Nothing panics on them.
//!
//! Each is as good as the protocols chosen: [`LowHighLow`], for one, is what Linux does on PAE, and not sound there.
//!
//! # A tree of tables of one owner
//!
//! ```
//! # use machine::{Cpu, CpuId, CpuSet, Frame, Invalidation, IrqState, PhysAddr, Vector, VirtAddr, Word};
//! # use std::sync::atomic::{AtomicU64, Ordering::*};
//! use pagetable::*;
//! # struct Bare;
//! # impl Cpu for Bare {
//! #     fn id(&self) -> CpuId { CpuId::new(0) }
//! #     fn load<W: Word>(&self, w: &W) -> W::Value { w.atomic_load(Acquire) }
//! #     fn store<W: Word>(&self, w: &W, v: W::Value) { w.atomic_store(v, Release) }
//! #     fn swap<W: Word>(&self, w: &W, v: W::Value) -> W::Value { w.atomic_swap(v) }
//! #     fn compare_exchange<W: Word>(&self, w: &W, o: W::Value, n: W::Value) -> Result<W::Value, W::Value> {
//! #         w.atomic_compare_exchange(o, n)
//! #     }
//! #     fn fetch_add<W: Word>(&self, w: &W, v: W::Value) -> W::Value { w.atomic_fetch_add(v) }
//! #     fn fetch_and<W: Word>(&self, w: &W, v: W::Value) -> W::Value { w.atomic_fetch_and(v) }
//! #     fn fetch_or<W: Word>(&self, w: &W, v: W::Value) -> W::Value { w.atomic_fetch_or(v) }
//! #     fn fence(&self) {}
//! #     fn irq_save(&self) -> IrqState { IrqState::On }
//! #     fn irq_restore(&self, _: IrqState) {}
//! #     fn send_ipi(&self, _: CpuSet, _: Vector) {}
//! #     fn tlb_invalidate(&self, _: Invalidation) {}
//! #     fn tlb_invalidate_paravirtual(&self, _: CpuSet, _: Invalidation) {}
//! #     fn tlb_broadcast(&self, _: Invalidation) {}
//! #     fn tlb_broadcast_sync(&self) {}
//! #     fn load_root(&self, _: PhysAddr) {}
//! #     fn rcu_read_lock(&self) {}
//! #     fn rcu_read_unlock(&self) {}
//! #     fn synchronize_rcu(&self) {}
//! # }
//! # struct Bump(AtomicU64);
//! # impl TableSource for Bump {
//! #     fn allocate_table<C: Cpu>(&self, _: &C) -> Result<Frame, OutOfFrames> {
//! #         let next = self.0.fetch_add(1, Relaxed);
//! #         if next < 0x108 { Ok(Frame::new(next)) } else { Err(OutOfFrames) }
//! #     }
//! #     fn free_table<C: Cpu>(&self, _: &C, _: Frame) {}
//! # }
//! # let cpu = &Bare;
//! // Eight frames for tables, of which the first is the root.
//! let frames: [TableFrame; 8] = Default::default();
//! let metas: [TableMeta; 8] = Default::default();
//! let memory = TableArena::new(Frame::new(0x100), &frames, &metas);
//! # let source = Bump(AtomicU64::new(0x101));
//!
//! let mode = FourLevel::new(PhysicalWidth::MAX);
//! let root = Root::new(&mode, PhysAddr::new(0x10_0000))?;
//! let mut mapper = Mapper::new(cpu, mode, &memory, root, Offline);
//!
//! let page = VirtAddr::new(0x7000_0000_0000);
//! let rights = Rights::USER.and(Rights::WRITE);
//! mapper.map(&source, page, Level::Pte, Frame::new(0x1234), Attributes::new(rights))?;
//! assert_eq!(mapper.translate(page)?.frame, Frame::new(0x1234));
//!
//! let gone = mapper.unmap(page)?;
//! assert!(!gone.entry.has(Flags::DIRTY));
//! mapper.prune((page, 4096), |table| table.after_flush(&NeverLoaded).free(cpu, &source))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]

pub mod detach;
pub mod entry;
pub mod error;
pub mod flush;
pub mod level;
pub mod locked;
pub mod locked_range;
pub mod map;
pub mod memory;
pub mod mode;
pub mod nonpresent;
pub mod owner;
mod prune;
pub mod ptdump;
pub mod publish;
pub mod range;
pub mod read;
pub mod recheck;
pub mod rights;
mod saved_dirty;
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
pub use locked_range::LockedRun;
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
pub use saved_dirty::SavesDirty;
pub use software::Mark;
pub use table::{Pdpt, Slot, Table, TableFrame, TableMeta};
pub use tables::Tables;
pub use walk::{Path, Translation};
pub use width::{Split, Wide, Width};
pub use write::{EntryWrite, Sequenced, TwoStep, Whole, Xchg64};
