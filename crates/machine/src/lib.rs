//! The contract between a memory-management engine and the multiprocessor it runs on.
//!
//! Every access that another CPU, an interrupt handler or a hardware page walker could see goes through
//! [`Cpu`]. The engine is written once against this trait; three machines implement it:
//!
//! * OS threads (`hosted`), where an operation is the plain instruction;
//! * the lab, where an operation is a step that the explorer may interleave with every other CPU;
//! * a bare x86 machine.
//!
//! That is how *the code that was checked is the code that runs*: there is no second model of the engine.
//!
//! # What is here
//!
//! | module | what |
//! |---|---|
//! | [`addr`] | addresses and frame numbers |
//! | [`word`] | the memory cells that CPUs share |
//! | [`cpu`] | the trait [`Cpu`]: accesses, fences, waiting, interrupts, TLB invalidation, RCU |
//! | [`lock`], [`rwlock`], [`percpu_rwlock`], [`seqcount`] | synchronisation built on [`Cpu`], nothing else |
//! | [`irq`] | the proof that interrupts are off |
//! | [`preempt`] | the proof that the thread stays on its CPU |
//! | [`tlb`] | what to invalidate |
//! | [`context`] | process-context identifiers |
//! | [`protection_key`] | keys of user pages, and what a thread may do by them |
//! | [`user`] | loads and stores made by user code, through the TLB |
//!
//! # Memory model
//!
//! x86-TSO. `MODEL.md` beside this crate's source numbers every promise of the hardware that code may rely on (`P…`) and
//! every freedom that the hardware has (`F…`), each with its source.
//!
//! In short: a [`Cpu::load`] is an acquire load and a [`Cpu::store`] a release store (plain `mov`); a
//! store may be delayed behind later loads of the same CPU; every read-modify-write is a full barrier.

#![no_std]

#[macro_use]
mod released_once;

pub mod addr;
pub mod context;
pub mod cpu;
pub mod irq;
pub mod lock;
pub mod percpu_rwlock;
pub mod preempt;
pub mod protection_key;
pub mod rwlock;
pub mod seqcount;
pub mod tlb;
pub mod user;
pub mod word;

pub use addr::{Frame, PhysAddr, VirtAddr};
pub use context::{ContextInvalidation, Pcid, ProcessContexts, Retention};
pub use cpu::{Cpu, CpuId, CpuSet, IrqState, LoopHead, Vector};
pub use irq::IrqOff;
pub use lock::{SpinGuard, SpinLock};
pub use percpu_rwlock::{PerCpuRwLock, Reader, ReaderLock, WriteAllGuard};
pub use preempt::PreemptOff;
pub use protection_key::{KeyRights, Pkru, ProtectionKey, ProtectionKeys};
pub use rwlock::{ReadGuard, RwLock, WriteGuard};
pub use seqcount::SeqCount;
pub use tlb::Invalidation;
pub use user::{Access, PageFault, UserAccess};
pub use word::{Word, Word32, Word64};
