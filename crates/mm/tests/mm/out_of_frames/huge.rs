//! Huge pages, reclaim and migration.

use crate::memory::CACHED;
use mm::{Area, AreaRights};

use super::steps::*;
use super::world::*;

pub(crate) const HUGE_PAGES_AND_RECLAIM: &[Case] = &[
    Case {
        name: "split of a leaf",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.split_leaf(&w.cpu, w.kernel.space(0), AT)),
    },
    Case {
        name: "split of a leaf of a file",
        fails: Fails::Whole,
        prepare: |w| {
            huge_file(w);
            w.load(3);
        },
        operate: |w| said(w.kernel.mm.split_leaf(&w.cpu, w.kernel.space(0), AT)),
    },
    Case {
        name: "split of a folio",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.split_folio(&w.cpu, w.frame(9))),
    },
    Case {
        name: "split of a folio of two address spaces",
        fails: Fails::Whole,
        prepare: |w| forked(w, World::huge),
        operate: |w| said(w.kernel.mm.split_folio(&w.cpu, w.frame(9))),
    },
    Case {
        name: "collapse",
        fails: Fails::Whole,
        prepare: |w| {
            World::huge(w);
            w.kernel.mm.split_folio(&w.cpu, w.frame(9)).expect("nobody else uses it");
        },
        operate: |w| said(w.kernel.mm.collapse(&w.cpu, w.kernel.space(0), AT, 0)),
    },
    Case {
        name: "sharing of a table",
        fails: Fails::Whole,
        prepare: |w| {
            for space in [ONE, TWO] {
                let area = Area::shared(AT, HUGE, AreaRights::ReadWrite, CACHED, 0);
                w.kernel.mm.mmap(&w.cpu, space, area).expect("a good area");
            }
            w.load(3);
        },
        operate: |w| said(w.kernel.mm.share_table(&w.cpu, (TWO, AT), (ONE, AT))),
    },
    Case {
        name: "a fault after a shared table was left",
        fails: Fails::Whole,
        prepare: |w| {
            for space in [ONE, TWO] {
                let area = Area::shared(AT, HUGE, AreaRights::ReadWrite, CACHED, 0);
                w.kernel.mm.mmap(&w.cpu, space, area).expect("a good area");
            }
            w.load(3);
            w.kernel.mm.share_table(&w.cpu, (TWO, AT), (ONE, AT)).expect("the same pages");
            w.kernel.mm.zap(&w.cpu, w.kernel.space(1), page(3), 1).expect("whole tables");
        },
        operate: |w| load(w, 1, 3),
    },
    Case {
        name: "swap-out",
        fails: Fails::Whole,
        prepare: two_small_pages,
        operate: |w| said(w.kernel.mm.swap_out(&w.cpu, w.frame(3))),
    },
    Case {
        name: "swap-out of a page of two address spaces",
        fails: Fails::Whole,
        prepare: |w| forked(w, two_small_pages),
        operate: |w| said(w.kernel.mm.swap_out(&w.cpu, w.frame(3))),
    },
    Case {
        name: "swap-out of many",
        fails: Fails::InPart,
        prepare: two_small_pages,
        operate: |w| {
            let frames: Vec<_> = [3, 4].into_iter().filter_map(|n| w.kernel.frame_at(&w.cpu, 0, page(n))).collect();
            let mut result = Ok(());
            w.kernel.mm.swap_out_many(&w.cpu, &frames, |_, out| result = result.clone().and(said(out)));
            result
        },
    },
    Case {
        name: "migration",
        fails: Fails::Whole,
        prepare: two_small_pages,
        operate: |w| said(w.kernel.mm.migrate(&w.cpu, w.frame(3))),
    },
    Case {
        name: "migration of a page of a file",
        fails: Fails::Whole,
        prepare: |w| {
            shared_file(w);
            w.load(3);
        },
        operate: |w| said(w.kernel.mm.migrate(&w.cpu, w.kernel.file_frame(3).expect("filled"))),
    },
    Case {
        name: "migration of a huge page",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.migrate(&w.cpu, w.frame(0))),
    },
    Case {
        name: "migration of a range",
        fails: Fails::InPart,
        prepare: two_small_pages,
        operate: |w| {
            let moved = w.kernel.mm.migrate_range(&w.cpu, w.kernel.space(0), page(3), 2);
            if moved == Ok(2) { Ok(()) } else { Err(format!("{moved:?}")) }
        },
    },
    Case {
        name: "a driver's folio",
        fails: Fails::Whole,
        prepare: |_| (),
        operate: |w| {
            let frame = w.kernel.mm.allocate_folio(&w.cpu, 3);
            frame.map(|frame| said(w.kernel.mm.free_folio(&w.cpu, frame))).map_err(|error| format!("{error:?}"))?
        },
    },
];
