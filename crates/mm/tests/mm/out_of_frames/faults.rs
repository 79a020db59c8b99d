//! Faults of every kind, and populate.

use crate::memory::{CACHED, CACHED_HUGE, anonymous};
use machine::Access;
use mm::{Area, AreaRights};

use super::steps::*;
use super::world::*;

pub(crate) const FAULTS: &[Case] = &[
    Case { name: "store to anonymous memory", fails: Fails::Whole, prepare: small, operate: |w| store(w, 0, 3) },
    Case { name: "load from anonymous memory", fails: Fails::Whole, prepare: small, operate: |w| load(w, 0, 3) },
    Case {
        name: "store where the zero page is",
        fails: Fails::Whole,
        prepare: |w| {
            small(w);
            w.load(3);
        },
        operate: |w| store(w, 0, 3),
    },
    Case { name: "load from a shared file", fails: Fails::Whole, prepare: shared_file, operate: |w| load(w, 0, 3) },
    Case { name: "store to a shared file", fails: Fails::Whole, prepare: shared_file, operate: |w| store(w, 0, 3) },
    Case { name: "load from a private file", fails: Fails::Whole, prepare: private_file, operate: |w| load(w, 0, 3) },
    Case { name: "store to a private file", fails: Fails::Whole, prepare: private_file, operate: |w| store(w, 0, 3) },
    Case {
        name: "store to a page of a private file",
        fails: Fails::Whole,
        prepare: |w| {
            private_file(w);
            w.load(3);
        },
        operate: |w| store(w, 0, 3),
    },
    Case { name: "load from a huge file", fails: Fails::Whole, prepare: huge_file, operate: |w| load(w, 0, 3) },
    Case { name: "store to a huge file", fails: Fails::Whole, prepare: huge_file, operate: |w| store(w, 0, 3) },
    Case {
        name: "store to a private page of a huge file",
        fails: Fails::Whole,
        prepare: |w| w.map(Area::private(AT, HUGE, AreaRights::ReadWrite, CACHED_HUGE, 0)),
        operate: |w| store(w, 0, 3),
    },
    Case {
        name: "the parent's store after a fork",
        fails: Fails::Whole,
        prepare: |w| forked(w, two_small_pages),
        operate: |w| store(w, 0, 3),
    },
    Case {
        name: "the child's store after a fork",
        fails: Fails::Whole,
        prepare: |w| forked(w, two_small_pages),
        operate: |w| store(w, 1, 3),
    },
    Case { name: "store to a merged page", fails: Fails::Whole, prepare: merged, operate: |w| store(w, 0, 4) },
    Case {
        name: "the child's store to a merged page",
        fails: Fails::Whole,
        prepare: |w| forked(w, merged),
        operate: |w| store(w, 1, 3),
    },
    Case {
        name: "pages of one's own for merged ones",
        fails: Fails::InPart,
        prepare: merged,
        operate: |w| said(w.kernel.mm.unmerge(&w.cpu, w.kernel.space(0), AT, 16)),
    },
    Case {
        name: "load from swap",
        fails: Fails::Whole,
        prepare: |w| {
            two_small_pages(w);
            w.swap_out(3);
        },
        operate: |w| load(w, 0, 3),
    },
    Case {
        name: "the child's store to what is on swap",
        fails: Fails::Whole,
        prepare: |w| {
            two_small_pages(w);
            w.swap_out(3);
            fork(w).expect("enough frames");
        },
        operate: |w| store(w, 1, 3),
    },
    Case {
        name: "store to anonymous memory in huge pages",
        fails: Fails::WithLess,
        prepare: |w| w.map(anonymous(AT, 2 * HUGE, 0).with_huge_pages()),
        operate: |w| store(w, 0, 3),
    },
    Case {
        name: "load from anonymous memory in huge pages",
        fails: Fails::WithLess,
        prepare: |w| w.map(anonymous(AT, 2 * HUGE, 0).with_huge_pages()),
        operate: |w| load(w, 0, 3),
    },
    Case {
        name: "store to a huge page after a fork",
        fails: Fails::Whole,
        prepare: |w| forked(w, World::huge),
        operate: |w| store(w, 0, 3),
    },
    Case {
        name: "populate anonymous memory",
        fails: Fails::InPart,
        prepare: small,
        operate: |w| said(w.kernel.mm.populate(&w.cpu, w.kernel.space(0), AT, 5, Access::Write)),
    },
    Case {
        name: "populate a private file, across tables",
        fails: Fails::InPart,
        prepare: |w| w.map(Area::private(page(508), 8, AreaRights::ReadWrite, CACHED, 0)),
        operate: |w| said(w.kernel.mm.populate(&w.cpu, w.kernel.space(0), page(508), 8, Access::Write)),
    },
];
