//! A simulated multiprocessor that explores every interleaving of real code.
//!
//! Code written on [`machine::Cpu`] runs here unchanged, on up to 16 simulated CPUs with store buffers, TLBs, page walkers, interrupts and IPIs. The
//! explorer runs it through *every* interleaving of its machine operations with each other and with the hardware's own steps. It
//! returns either "safe", when all were explored, or the shortest run that breaks a rule.
//!
//! What the hardware does is written down in `MODEL.md` beside the `machine` crate's source.
//!
//! # Example
//!
//! Two CPUs that each raise a flag and look at the other's, Dekker's way. On x86 both may miss: the stores still wait in the store buffers.
//!
//! ```
//! use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, trace};
//! use machine::{Cpu, CpuId, Word64};
//!
//! fn enter(cpu: &LabCpu, mine: &Word64, theirs: &Word64, inside: &Word64, fence: fn(&LabCpu)) {
//!     cpu.store(mine, 1);
//!     fence(cpu);
//!     if cpu.load(theirs) == 0 {
//!         assert_eq!(cpu.fetch_add(inside, 1), 0, "both are inside");
//!     }
//! }
//!
//! fn explore(fence: fn(&LabCpu)) -> lab::Report {
//!     let arena = Arena::new();
//!     let flags = arena.alloc([Word64::new(0), Word64::new(0)]);
//!     let inside = arena.alloc(Word64::new(0));
//!     let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
//!     lab.name(&flags[0], "flag 0");
//!     lab.name(&flags[1], "flag 1");
//!     lab.cpu("left", move |cpu| enter(cpu, &flags[0], &flags[1], inside, fence));
//!     lab.cpu("right", move |cpu| enter(cpu, &flags[1], &flags[0], inside, fence));
//!     lab.explore(&Limits::default())
//! }
//!
//! let report = explore(|_| ());
//! let found = report.expect_violation("user");
//! assert!(trace::columns(&found.trace).contains("store flag 0 := 1, into the store buffer"));
//!
//! explore(|cpu| cpu.fence()).expect_safe();
//! ```
//!
//! # Looking at a run
//!
//! [`trace::columns`] prints a run. [`Lab::replay`] does it again, on a lab that is built in the same way: in another process, on another machine, under a debugger.
//! It returns the state before and after each step: what CPUs, store buffers, TLBs, page tables and words hold ([`History`]).
//!
//! # How code must behave
//!
//! A CPU's code is an ordinary blocking function on a stack of its own. It runs from one operation of its [`LabCpu`] to the next without anyone
//! else noticing. Going back to an earlier state means copying that stack back, so *everything* that changes must lie either on the stack or in words of
//! the [`Arena`]:
//!
//! * no heap memory, thread-local, static or captured cell may be alive across an operation and change. `Sync` bounds keep most cells out; the
//!   rest is found by an audit ([`MisuseKind::HiddenState`]): a CPU that was given the same answers must ask for the same next operation,
//!   whenever in the search;
//! * words outside the arena are refused ([`MisuseKind::OutsideArena`]);
//! * a CPU's stack is abandoned, not unwound, when a run ends. Only a panic unwinds, up to the start of the CPU's code; operations of guards dropped meanwhile
//!   do nothing.
//!
//! Code that loops without any operation hangs the search. Code that loops *with* operations says where a round begins ([`machine::Cpu::round`]),
//! or it has endlessly many states.
//!
//! # Why the answer can be trusted
//!
//! "Safe" means that no interleaving breaks a rule. The search is exhaustive, but it does not take every interleaving one by one. These are the
//! places where it takes one for many, and why that loses nothing.
//!
//! **Only operations interleave.** Between two operations a CPU's code touches only its own stack (see above), so nobody can tell when it ran.
//!
//! **Owned accesses are part of the operation before.** They promise that nobody else accesses the word meanwhile. An audit searches for the opposite: if any
//! run has an owned access next to another CPU's access to the same word, not both reads, then some state has one CPU just past its owned access
//! and another just before (or just past) its own, and the search, which visits every state, reports it
//! ([`MisuseKind::NotOwned`]). No lock has to be recognised for that: a CPU that waits for a lock stands before the lock's word. Owned stores to tables that a
//! walker may read are reported, too. The audit looks at the run that reached a state first, so a conflict that only shows after
//! a round forgot the owned access may escape.
//!
//! **States are compared by fingerprints** of 128 bits. With a thousand million states, the chance that any two different ones are
//! taken for one is about 10<sup>-21</sup>. Half as wide they take half the memory ([`Fingerprints::Narrow`]), and [`Report::missed`] says what that costs.
//!
//! **A CPU's code is known by what it was told**: the results of its operations, in order. The same code, told the same, does the same.
//!
//! **Rounds forget.** At [`machine::Cpu::round`], the head of a retry loop, what earlier rounds of *this* loop were told is forgotten: the CPU is known by what
//! it had been told when it entered the loop, and by the digest. What its callers were told is not forgotten, so a digest has to name only
//! what the loop itself carries from round to round. At [`LabCpu::op_boundary`], between operations of a test, everything is forgotten but the digest. A
//! digest that leaves something out would merge states that differ; the audit for hidden state finds it as soon as the two act
//! differently anywhere in the search.
//!
//! **TLBs are sets of what may be held.** Hardware may cache a translation at any moment at which it is reachable, and may drop it at
//! any moment. Rather than trying each moment, the lab keeps everything that *may* be held since the last invalidation. An access may use any element, or
//! walk. Filling and dropping a translation does nothing else (accessed flags are set by steps of their own), so each real history of fills and
//! drops corresponds to picks from these sets, and each pick to a history. The one excess: an element may be used whose accessed flag was not set yet.
//!
//! **`iret` with nothing in the store buffer is part of the handler's last operation.** It only lets the next interrupt come, which from then on may be
//! taken but need not, and ends waits for this CPU's section, which may end later as well.
//!
//! **The shortest run is found by a second search**, level by level. Its verdict does not depend on the first: it begins with nothing known of words, and goes
//! back to the level where it first relied on what turns out wrong.
//!
//! Everything is deterministic: two explorations of the same lab give the same verdict, trace and numbers.

#[doc = include_str!("../GUIDE.md")]
pub mod guide {}

mod act;
mod agent;
mod apart;
mod arena;
mod audit;
mod buffer;
mod cells;
mod checkpoint;
mod choice;
mod columns;
mod contents;
mod core;
mod cpu;
pub mod debugger;
mod depth_first;
mod enabled;
mod exchange;
mod execute;
mod explore;
mod fairness;
mod foresee;
mod frames;
mod ghost;
mod hash;
mod history;
mod lab;
mod label;
mod limits;
mod livelock;
mod machine_config;
mod mapping;
mod mmu;
mod monitor;
mod moves;
mod notes;
mod op;
mod owned;
mod paging;
mod peek;
mod preempt;
mod quiet;
mod record;
mod recording;
mod replay;
mod replicas;
mod route;
mod sample;
mod schedule;
mod shortest;
mod shown_run;
mod slots;
mod stack;
mod symbols;
pub mod sync;
mod team;
mod tlb;
mod together;
pub mod trace;
mod user;
mod verdict;
mod visited;
mod weaken;

pub use apart::{Apart, Claim, Claimed, Claims, Counts, OtherLab, Total, Trouble, Way};
pub use arena::Arena;
pub use checkpoint::{Checkpoint, CheckpointError, Snapshot};
pub use cpu::LabCpu;
pub use frames::{Backing, FrameKind, Pool};
pub use history::{History, Panel, Row};
pub use lab::{Format, Lab};
pub use label::{Label, Weakening};
pub use limits::{Limit, Limits, Phase, Progress};
pub use machine_config::{
    Caching, ExecuteDisable, FreedWalks, GlobalPages, Machine, MemoryOrder, Pcids, Pdptes, ProtectionKeys, Reduction,
    ShadowStacks, Speculation, Threads, WalkerUpdates,
};
pub use monitor::{End, Event, Ghost, GhostWords, Monitor, Writer};
pub use paging::{Decoded, Paging};
pub use recording::{BadRecording, Recording};
pub use replay::{Departure, Ending, Replay, Why};
pub use replicas::Replica;
pub use sample::{Sampled, Sampling};
pub use schedule::Schedule;
pub use shown_run::ShownRun;
pub use team::{Seat, Team};
pub use trace::Trace;
pub use verdict::{Counterexample, Misuse, MisuseKind, Report, Verdict, Violation, rule};
pub use visited::Fingerprints;
