//! A machine made of OS threads: the engine runs on real memory, at full speed, in one process.
//!
//! ```
//! use hosted::Threads;
//! use machine::{Cpu, Word64};
//!
//! let machine = Threads::new(2, |cpu, vector| println!("{} took {vector:?}", cpu.id())).unwrap();
//! let cpu = machine.attach().unwrap();
//! let word = Word64::new(1);
//! let irqs = cpu.irq_off();
//! assert_eq!(cpu.fetch_add(&word, 1), 1);
//! drop(irqs);
//! ```
//!
//! # What is a CPU here
//!
//! A number, up to 64 of them, and a cache line of state. A thread that wants to run engine code [takes](Threads::attach) a free CPU and
//! acts as it through its [`ThreadCpu`], which cannot be shared between threads; dropping it gives the CPU back. Nothing else is
//! bound: threads may outnumber CPUs, and the operating system may move or stop them anywhere.
//!
//! # What an operation costs
//!
//! Loads, stores and read-modify-writes are the plain instruction. "Interrupts off" and RCU sections are a store
//! each way to the CPU's own cache line, without a fence: the price of ordering them is paid by the side that
//! sends an IPI or waits for a grace period ([`fences`](Fences)).
//!
//! # What stands where hardware has more
//!
//! * **IPIs.** A thread outside an interrupts-off section may be anywhere, even asleep, so nobody can interrupt it. The *sender*
//!   runs the handler on the target's behalf, or the target does at the end of its section. The module [`interrupts`]
//!   states the protocol and why the handler never overlaps a section.
//! * **TLB.** Threads walk tables in software and cache nothing: invalidations are counted ([`Statistics`]) and complete at once.
//! * **RCU** is a store on entry and exit, and a scan by who waits ([`grace`]).
//!
//! # Memory
//!
//! [`FrameArena`] gives frames that page tables and data can lie in; [`TrustedArena`] finds tables in it without looking whether they are there.
//! [`DataFrames`] gives folios with contents and records, as [`mm`] wants them; [`UserMemory`] is what user code on a CPU does to them through page tables.
//! [`MemorySwap`] is a swap device. Allocations and devices fail where a test wants it ([`Failures`]).
//!
//! # Rules for handlers
//!
//! A handler may run on the sender's thread, inside whatever the sender holds. So it must not wait for anything: no lock that a sender may
//! hold, no [`Cpu::await_value`](machine::Cpu::await_value). What it shares with other code of its own CPU, that code touches with interrupts
//! off only, as on hardware.

pub mod arena;
mod backoff;
mod buddy;
mod data_frames;
mod failures;
pub mod fences;
pub mod grace;
pub mod interrupts;
mod line;
mod memory_swap;
mod number_set;
mod reservation;
mod statistics;
mod sync;
mod thread_cpu;
mod threads;
mod trusted;
mod user;
mod zero;

pub use arena::FrameArena;
pub use data_frames::{DataFrames, Leak};
pub use failures::{FailingTables, Failures};
pub use fences::Fences;
pub use memory_swap::MemorySwap;
pub use statistics::Statistics;
pub use thread_cpu::ThreadCpu;
pub use threads::{AttachError, CpuCountError, Threads};
pub use trusted::TrustedArena;
pub use user::UserMemory;
