//! Fork, and changes of areas.

use crate::memory::{CACHED, anonymous};
use mm::{Area, AreaRights, Foll, UffdModes, UffdProtection};

use super::steps::*;
use super::world::*;

pub(crate) const AREA_CHANGES: &[Case] = &[
    Case { name: "fork of small pages", fails: Fails::ReadOnly, prepare: two_small_pages, operate: fork },
    Case {
        name: "fork of two tables, swap, a file's pages and copies",
        fails: Fails::ReadOnly,
        prepare: |w| {
            w.map(anonymous(page(508), 8, 0));
            (508..516).for_each(|number| w.store(number));
            w.swap_out(509);
            w.swap_out(513);
            w.map(Area::private(ELSEWHERE, 4, AreaRights::ReadWrite, CACHED, 4));
            w.kernel.store(&w.cpu, 0, ELSEWHERE, 1).expect("memory");
            w.kernel.load(&w.cpu, 0, ELSEWHERE.wrapping_add(4096)).expect("memory");
        },
        operate: fork,
    },
    Case { name: "fork of a huge page", fails: Fails::ReadOnly, prepare: World::huge, operate: fork },
    Case {
        name: "fork of pinned pages",
        fails: Fails::ReadOnly,
        prepare: two_small_pages,
        operate: |w| {
            w.pin(3, 2, Foll::PIN | Foll::WRITE)?;
            fork(w)
        },
    },
    Case {
        name: "fork of a pinned huge page",
        fails: Fails::ReadOnly,
        prepare: World::huge,
        operate: |w| {
            w.pin(3, 1, Foll::PIN | Foll::WRITE)?;
            fork(w)
        },
    },
    Case {
        name: "mprotect of part of a huge page",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.mprotect(&w.cpu, ONE, page(3), 5, AreaRights::Read)),
    },
    Case {
        name: "mprotect from one huge page into another",
        fails: Fails::Whole,
        prepare: |w| {
            World::huge(w);
            w.store(HUGE);
        },
        operate: |w| said(w.kernel.mm.mprotect(&w.cpu, ONE, page(500), 20, AreaRights::None)),
    },
    Case {
        name: "munmap of part of a huge page",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.munmap(&w.cpu, ONE, page(3), 5)),
    },
    Case {
        name: "munmap from one huge page into another",
        fails: Fails::Whole,
        prepare: |w| {
            World::huge(w);
            w.store(HUGE);
        },
        operate: |w| said(w.kernel.mm.munmap(&w.cpu, ONE, page(500), 20)),
    },
    Case {
        name: "guards where nothing is mapped, over two tables",
        fails: Fails::Whole,
        prepare: |w| w.map(anonymous(AT, 2 * HUGE, 0)),
        operate: |w| said(w.kernel.mm.install_guards(&w.cpu, w.kernel.space(0), page(500), 20)),
    },
    Case {
        name: "guards over part of a huge page, and of one that is not there",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.install_guards(&w.cpu, w.kernel.space(0), page(500), 20)),
    },
    Case {
        name: "guards over pages, swap and a file",
        fails: Fails::Whole,
        prepare: |w| {
            w.map(anonymous(page(508), 4, 0));
            w.map(Area::private(page(512), 4, AreaRights::ReadWrite, CACHED, 4));
            (508..512).for_each(|number| w.store(number));
            w.swap_out(509);
        },
        operate: |w| said(w.kernel.mm.install_guards(&w.cpu, w.kernel.space(0), page(508), 8)),
    },
    Case {
        name: "a page for a userfault, and the tables for it",
        fails: Fails::Whole,
        prepare: |w| w.register(anonymous(AT, 2 * HUGE, 0), UffdModes::MISSING),
        operate: |w| {
            let fill = |_, frame| w.kernel.data.write(frame, 0, 7);
            said(w.kernel.mm.uffd_copy(&w.cpu, w.kernel.space(0), (page(3), 1), UffdProtection::None, fill))
        },
    },
    Case {
        name: "write protection for userfaultfd over part of a huge page",
        fails: Fails::Whole,
        prepare: |w| {
            World::huge(w);
            let modes = UffdModes::WRITE_PROTECT;
            w.kernel.mm.uffd_register(&w.cpu, ONE, AT, 2 * HUGE, modes).expect("anonymous memory");
        },
        operate: |w| said(w.kernel.mm.uffd_write_protect(&w.cpu, w.kernel.space(0), page(500), 20)),
    },
    Case {
        name: "write protection for userfaultfd where a file is not mapped yet",
        fails: Fails::Whole,
        prepare: |w| {
            w.register(Area::shared(page(508), 8, AreaRights::ReadWrite, CACHED, 0), UffdModes::WRITE_PROTECT);
            w.load(508);
        },
        operate: |w| said(w.kernel.mm.uffd_write_protect(&w.cpu, w.kernel.space(0), page(508), 8)),
    },
    Case {
        name: "registration of part of a huge page with userfaultfd",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.uffd_register(&w.cpu, ONE, page(3), 5, UffdModes::MISSING)),
    },
    Case {
        name: "fork of guards in a file's shared area",
        fails: Fails::ReadOnly,
        prepare: |w| {
            w.map(Area::shared(AT, 16, AreaRights::ReadWrite, CACHED, 0));
            w.load(3);
            w.kernel.mm.install_guards(&w.cpu, w.kernel.space(0), page(4), 2).expect("enough frames");
        },
        operate: fork,
    },
    Case {
        name: "madvise(dontneed) of part of a huge page",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.zap(&w.cpu, w.kernel.space(0), page(3), 5)),
    },
    Case {
        name: "madvise(dontneed) from one huge page into another",
        fails: Fails::Whole,
        prepare: |w| {
            World::huge(w);
            w.store(HUGE);
        },
        operate: |w| said(w.kernel.mm.zap(&w.cpu, w.kernel.space(0), page(500), 20)),
    },
    Case {
        name: "mremap of small pages",
        fails: Fails::Whole,
        prepare: two_small_pages,
        operate: |w| said(w.kernel.mm.mremap(&w.cpu, ONE, (page(1), 8), (ELSEWHERE.wrapping_add(4096 * 507), 8))),
    },
    Case {
        name: "mremap of a huge page as it is",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.mremap(&w.cpu, ONE, (AT, HUGE), (ELSEWHERE, HUGE))),
    },
    Case {
        name: "mremap of a huge page to where it cannot be one",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.mremap(&w.cpu, ONE, (AT, HUGE), (ELSEWHERE.wrapping_add(4096), HUGE))),
    },
    Case {
        name: "mremap of part of a huge page",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.mremap(&w.cpu, ONE, (page(100), 100), (ELSEWHERE, 50))),
    },
    Case {
        name: "mremap that cuts a huge page off",
        fails: Fails::Whole,
        prepare: World::huge,
        operate: |w| said(w.kernel.mm.mremap(&w.cpu, ONE, (AT, 2 * HUGE), (AT, 100))),
    },
];
