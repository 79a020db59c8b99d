//! What CPUs do to the engine, all at once, and what must be true at the end.

mod bench;
mod fork;
mod ledger;
mod shootdown;
mod special;
mod tables;
mod torn;

use core::fmt;

use crate::arch::BareCpu;
use crate::command_line::Request;
use crate::report::Verdict;
use crate::system::System;

/// A load.
pub(crate) struct Load {
    name: &'static str,
    /// Runs it and reports what it counted.
    pub(crate) run: fn(&BareCpu, &System, &Request) -> Verdict,
}

const ALL: &[Load] = &[
    Load { name: "torn", run: torn::run },
    Load { name: "shootdown", run: shootdown::run },
    Load { name: "tables", run: tables::run },
    Load { name: "fork", run: fork::run },
    Load { name: "special", run: special::run },
    Load { name: "bench", run: bench::run },
];

/// There is no such load.
pub(crate) struct UnknownLoad(&'static str);

impl fmt::Display for UnknownLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command line: there is no load {}; there are none, all", self.0)?;
        ALL.iter().try_for_each(|load| write!(f, ", {}", load.name))
    }
}

/// The loads that a word asks for.
pub(crate) fn named(name: &'static str) -> Result<impl Iterator<Item = &'static Load>, UnknownLoad> {
    let is_asked = move |load: &&Load| name == "all" || load.name == name;
    if name == "none" || ALL.iter().any(|load| is_asked(&load)) {
        Ok(ALL.iter().filter(is_asked))
    } else {
        Err(UnknownLoad(name))
    }
}
