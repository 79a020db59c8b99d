//! GUP, and pins of files.

use crate::memory::{CACHED, anonymous};
use mm::{Area, AreaRights, Foll};

use super::steps::*;
use super::world::*;

pub(crate) const PINS: &[Case] = &[
    Case {
        name: "pin with faults",
        fails: Fails::InPart,
        prepare: |w| w.map(anonymous(page(508), 8, 0)),
        operate: |w| w.pin(508, 8, Foll::PIN | Foll::WRITE),
    },
    Case { name: "get of one page", fails: Fails::Whole, prepare: small, operate: |w| w.pin(3, 1, Foll::GET) },
    Case {
        name: "pin for reading of pages that a fork shared",
        fails: Fails::InPart,
        prepare: |w| forked(w, two_small_pages),
        operate: |w| w.pin(3, 2, Foll::PIN),
    },
    Case {
        name: "pin for reading of merged pages",
        fails: Fails::InPart,
        prepare: merged,
        operate: |w| w.pin(3, 2, Foll::PIN),
    },
    Case {
        name: "pin for reading, for long, of the zero page and a file's page",
        fails: Fails::InPart,
        prepare: |w| {
            w.map(anonymous(AT, 4, 0));
            w.map(Area::private(page(4), 4, AreaRights::ReadWrite, CACHED, 0));
            w.load(3);
            w.load(4);
        },
        operate: |w| w.pin(3, 2, Foll::PIN | Foll::LONGTERM),
    },
    Case {
        name: "pin for long of movable pages",
        fails: Fails::InPart,
        prepare: |w| {
            two_small_pages(w);
            [3, 4].into_iter().for_each(|number| w.mark_movable(w.frame(number)));
        },
        operate: |w| w.pin(3, 2, Foll::PIN | Foll::WRITE | Foll::LONGTERM),
    },
    Case {
        name: "pin for long of a movable huge page",
        fails: Fails::Whole,
        prepare: |w| {
            World::huge(w);
            w.mark_movable(w.frame(0));
        },
        operate: |w| w.pin(3, 2, Foll::PIN | Foll::WRITE | Foll::LONGTERM),
    },
    Case {
        name: "forced write into an area that may be read",
        fails: Fails::InPart,
        prepare: |w| w.map(Area::private(AT, 8, AreaRights::Read, CACHED, 0)),
        operate: |w| w.pin(3, 2, Foll::PIN | Foll::WRITE | Foll::FORCE),
    },
    Case {
        name: "get of pages that have entries of their own",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| w.pin(3, 2, Foll::GET | Foll::SPLIT_PMD),
    },
    Case {
        name: "remote pin",
        fails: Fails::InPart,
        prepare: small,
        operate: |w| {
            let sink = |run| w.got.borrow_mut().push(run);
            let signal = || mm::Signal::None;
            let flags = Foll::PIN | Foll::WRITE;
            let got = w.kernel.mm.gup_remote(&w.cpu, w.kernel.space(0), (page(3), 2), flags, signal, sink);
            if got == Ok(2) { Ok(()) } else { Err(format!("{got:?}")) }
        },
    },
    Case {
        name: "pin of movable pages of a file",
        fails: Fails::InPart,
        prepare: |w| {
            shared_file(w);
            w.load(3);
            (3..5).for_each(|page| w.mark_movable(w.kernel.file_frame(page).expect("filled")));
        },
        operate: |w| {
            let file = w.kernel.mm.file(CACHED).expect("it is there");
            let got = w.kernel.mm.pin_file(&w.cpu, file, (3, 2), |run| w.got.borrow_mut().push(run));
            if got == Ok(2) { Ok(()) } else { Err(format!("{got:?}")) }
        },
    },
];
