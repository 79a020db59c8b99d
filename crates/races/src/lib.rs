//! Litmus files of memory-management races, and the protocol variants they name.
//!
//! ```no_run
//! let race = races::Race::find("SB")?;
//! races::decide(&[race], &races::Options::default(), |report| println!("{:?} {:?}", report.verdict, report.observation));
//! # Ok::<(), races::LoadError>(())
//! ```
//!
//! A file is parsed ([`parse`]) into a [`syntax::Litmus`], checked into a [`Race`], and decided ([`decide()`]) into
//! one [`VariantReport`] for each of its variants and memory orders. `GRAMMAR.md` has the language.

mod apart;
mod arguments;
pub mod catalogue;
mod checker;
mod checkpoints;
mod decide;
mod elt;
mod ends;
mod entry_words;
mod error;
mod explore;
mod kernel;
mod machine_options;
mod needed;
mod orders;
mod overall;
pub mod parse;
mod pool;
mod protection_keys;
mod question;
mod race;
mod replay;
mod report;
pub mod rule;
mod saved_run;
mod scenario;
pub mod scope;
mod second;
mod source;
pub mod syntax;
mod x86;

pub use apart::{Share, decide_in};
pub use checkpoints::{Checkpoints, Present};
pub use cluster::{ClusterError, Hosts, Place as ClusterPlace};
pub use decide::{Limits, Options, Progress, ShowProgress, Way, Witnesses, Work, decide, decide_each, work};
pub use ends::{EndSet, Ends};
pub use error::{Error, LoadError, Problem};
pub use needed::{Asked, Need, NeedOptions, Pairs, Place, needed};
pub use overall::{Overall, Standing, overall};
pub use race::Race;
pub use replay::{CannotReplay, Departed, Moment, Outcome, Replayed};
pub use report::{FinalState, MemoryOrder, Observation, VariantReport, Verdict};
pub use saved_run::{BadRun, CODE, SavedRun};
pub use second::{Ground, Opinion, Samples, SecondEngine};
pub use source::{Position, Source, Span, Spanned};

/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// The examples of the documents are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
