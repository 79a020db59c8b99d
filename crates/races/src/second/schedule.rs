//! A run of the lab, as a schedule for the second engine. Both speak of the same memory, since a scenario's words lie at the same places each time that it is built.

use lab::Trace;
use lab::trace as seen;
use stateless::schedule::{Act, Age, Passage, Span, What};

pub(super) fn schedule(trace: &Trace) -> Vec<Act> {
    trace.acts.iter().map(|act| Act { cpu: act.cpu, what: what(act.what) }).collect()
}

fn what(what: seen::What) -> What {
    match what {
        seen::What::Operation(words) => What::Operation(words.map(span)),
        seen::What::Unseen(words) => What::Private(span(words)),
        seen::What::Return => What::Return,
        seen::What::Access(how) => What::Access(passage(how)),
        seen::What::Interrupt(vector) => What::Interrupt(vector),
        seen::What::Nmi => What::Nmi,
        seen::What::Drain { offset } => What::Drain { offset },
        seen::What::Arrival { from, what } => What::Arrival { from, what },
        seen::What::Accessed { offset } => What::Accessed { offset },
        seen::What::ReadFreedTable(frame) => What::ReadsFreedTable(frame),
        seen::What::Move { to } => What::Move { to },
    }
}

fn span(seen::Words { offset, bytes }: seen::Words) -> Span {
    Span { offset, bytes }
}

fn passage(passage: seen::Passage) -> Passage {
    match passage {
        seen::Passage::Reached { frame, stale } => {
            let age = if stale == seen::Stale::Yes { Age::FreedSince } else { Age::Current };
            Passage::Reaches { frame, age }
        }
        seen::Passage::FoundFlags { offset, flags } => Passage::FindsFlags { offset, flags },
        seen::Passage::WroteFlags => Passage::WritesFlags,
        seen::Passage::Faulted(cause) => Passage::Faults(cause),
        seen::Passage::FreedTable(frame) => Passage::FreedTable(frame),
        seen::Passage::NoTable(frame) => Passage::NoTable(frame),
    }
}
