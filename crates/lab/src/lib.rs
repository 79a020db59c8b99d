//! A simulated multiprocessor that explores every interleaving of real code.

mod arena;
mod cpu;
mod frames;
mod lab;
mod limits;
mod machine_config;
mod monitor;
mod paging;
pub mod trace;
mod verdict;

pub use arena::Arena;
pub use cpu::LabCpu;
pub use frames::{Backing, FrameKind, Pool};
pub use lab::{Format, Lab};
pub use limits::{Limit, Limits, Phase, Progress};
pub use machine_config::{Machine, MemoryOrder, Speculation};
pub use monitor::{End, Event, Ghost, Monitor, Writer};
pub use paging::{Decoded, Paging};
pub use trace::Trace;
pub use verdict::{Counterexample, Misuse, MisuseKind, Report, Verdict, Violation, rule};
