//! What the engine is told about the machine it runs on, and which protocols it follows.

use machine::Cpu;
use pagetable::{EntryRead, EntryWrite, Mode, Publish, Recheck, TableMemory, TableSource};

use crate::folio::MemoryMap;
use crate::frames::FrameSource;
use crate::guard::Guards;
use crate::lifetime::TableLifetime;
use crate::notify::Notify;
use crate::order::{FlushOrder, SpecialCheck};
use crate::shootdown::RemoteFlush;
use crate::special::DriverFault;
use crate::swap::SwapStore;
use crate::trace::Trace;
use crate::uffd::UffdHandler;

/// Machine, paging mode and protocols in one parameter, so that engine code reads `Mm<P>`.
///
/// The protocols are *values* of types, with methods that take `&self`. A kernel chooses zero-sized types and pays nothing; the lab chooses
/// types that decide at run time and so tries many protocols with one build of the same engine code.
pub trait Platform: Sized {
    /// The CPUs.
    type Cpu: Cpu;
    /// The paging mode.
    type Mode: Mode;
    /// Where page tables are.
    type Tables: TableMemory + TableSource;
    /// Where the records of frames are.
    type Map: MemoryMap<Self::Cpu>;
    /// Where frames for data come from.
    type Frames: FrameSource<Self::Cpu>;
    /// Where pages go that are taken out of memory.
    type Swap: SwapStore<Self::Cpu>;
    /// Who is told before entries change.
    type Notify: Notify<Self::Cpu>;
    /// What drivers make of faults on their files.
    type Drivers: DriverFault<Self>;
    /// Who resolves faults of areas that are registered.
    type Uffd: UffdHandler<Self::Cpu>;
    /// Who is told what happens.
    type Trace: Trace<Self::Cpu>;
    /// How lockless walkers read an entry that may change.
    type Read: EntryRead;
    /// How entries are written.
    type Write: EntryWrite;
    /// How fast GUP makes sure after the pin.
    type Recheck: Recheck;
    /// How a new table becomes reachable.
    type Publish: Publish;
    /// When TLBs are flushed, relative to the page-table lock.
    type FlushOrder: FlushOrder;
    /// How other CPUs' TLBs are flushed.
    type RemoteFlush: RemoteFlush;
    /// When a detached table may be freed.
    type Lifetime: TableLifetime;
    /// Who notices a special entry, and by which bit.
    type Special: SpecialCheck;
    /// The steps that kernels once did without.
    type Guards: Guards;
}

/// The protocols of a platform.
pub struct Protocols<P: Platform> {
    /// The paging mode.
    pub mode: P::Mode,
    /// How lockless walkers read an entry that may change.
    pub read: P::Read,
    /// How entries are written.
    pub write: P::Write,
    /// How fast GUP makes sure after the pin.
    pub recheck: P::Recheck,
    /// How a new table becomes reachable.
    pub publish: P::Publish,
    /// When TLBs are flushed, relative to the page-table lock.
    pub flush_order: P::FlushOrder,
    /// How other CPUs' TLBs are flushed.
    pub remote_flush: P::RemoteFlush,
    /// When a detached table may be freed.
    pub lifetime: P::Lifetime,
    /// Who notices a special entry, and by which bit.
    pub special: P::Special,
    /// The steps that kernels once did without.
    pub guards: P::Guards,
}
