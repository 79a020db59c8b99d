//! Small pages collapse into huge ones.

use super::*;

/// Whatever is mapped there: what an area is, and what it wants, is asked first.
#[test]
fn only_private_anonymous_areas_that_want_huge_pages_collapse() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    let wants_none = anonymous(AT, 512, 0);
    let plain = wants_none.with_huge_pages();
    let file = Area::private(AT, 512, AreaRights::ReadWrite, CACHED, 0).with_huge_pages();
    let late = anonymous(page(1), 511, 1).with_huge_pages();
    let others = [
        ("of a file", file),
        ("shared", Area { sharing: Sharing::Shared, ..plain }),
        ("without huge pages", wants_none),
        ("begins behind the first page", late),
    ];
    for (name, area) in others {
        kernel.mm.mmap(&cpu, SPACE, area).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        if area.sharing == Sharing::Private {
            kernel.store(&cpu, 0, page(3), 7).expect("memory");
        }
        let got = kernel.mm.collapse(&cpu, kernel.space(0), page(3), 512);
        assert_eq!(got, Err(CollapseError::Area { address: page(3) }), "{name}");
        kernel.mm.munmap(&cpu, SPACE, AT, 512).expect("whole tables");
    }
    kernel.mm.mmap(&cpu, SPACE, wants_none).expect("a good area");
    kernel.store(&cpu, 0, page(3), 7).expect("memory");
    kernel.mm.mprotect(&cpu, SPACE, AT, 512, AreaRights::None).expect("it is mapped");
    let got = kernel.mm.collapse(&cpu, kernel.space(0), page(3), 512);
    assert_eq!(got, Err(CollapseError::Area { address: page(3) }), "user code may not use it");
    kernel.mm.munmap(&cpu, SPACE, AT, 512).expect("whole tables");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

#[test]
fn small_pages_collapse_into_a_huge_one_with_the_same_contents() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    let collapse = |at, max_none| huge.kernel.mm.collapse(&cpu, huge.space, at, max_none);
    huge.write(&cpu, 0, 1);
    huge.zap(&cpu, 0, 511);
    // A table is there, so these are small.
    for number in 0..500 {
        huge.write(&cpu, number, 1000 + number);
    }
    assert_eq!(collapse(AT, 510), Err(CollapseError::Busy { address: page(511) }), "it is of the large folio still");
    assert_eq!(huge.in_use().0, 1012);
    huge.zap(&cpu, 511, 1);
    assert_eq!(collapse(AT, 11), Err(CollapseError::TooFew { pages: 500 }));
    assert_eq!(huge.in_use().0, 500);

    // A pinned page stays where it is, and so do all the others.
    let mut pins = Vec::new();
    let mm = huge.kernel.mm;
    mm.gup(&cpu, huge.space, page(7), 1, Foll::PIN | Foll::WRITE, |run| pins.push(run)).expect("a page");
    assert_eq!(collapse(AT, 12), Err(CollapseError::Busy { address: page(7) }));
    assert_eq!(huge.in_use().0, 500);
    for run in pins {
        mm.release(&cpu, run, Access::Read).expect("held");
    }

    collapse(page(3), 12).expect("nothing is in the way");
    assert_eq!(huge.in_use(), (512, 2), "one huge page, and neither small ones nor their table");
    for number in 0..512 {
        assert_eq!(huge.read(&cpu, number), if number < 500 { 1000 + number } else { 0 });
    }
    assert_eq!(huge.frame(&cpu, 511), huge.frame(&cpu, 0).wrapping_add(511));
    assert_eq!(collapse(AT, 512), Err(CollapseError::NoTable { address: AT }));
    huge.end(&cpu);
}

/// A merge has put the zero page there, and the huge page has zeros of its own.
/// A page that is marked so that somebody hears of the next access stays marked.
#[test]
fn pages_with_a_hint_do_not_collapse() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    huge.write(&cpu, 600, 6);
    huge.kernel.mm.split_folio(&cpu, huge.frame(&cpu, 600)).expect("nobody else uses it");
    let (frame, at) = (huge.frame(&cpu, 600), page(600));
    let tables = huge.kernel.page_tables(0);
    let mut table = tables.find(&cpu, at, Level::Pte).expect("a table").lock(&cpu);
    let attributes = table.entry(tables.mode, at).attributes(Level::Pte);
    table.replace(tables.writer, at, NonPresent::ProtNone(ProtNone { frame, attributes }).encode(Level::Pte));
    table.unlock();
    let collapse = || huge.kernel.mm.collapse(&cpu, huge.space, at, 512);
    assert_eq!(collapse(), Err(CollapseError::Busy { address: at }));
    assert_eq!(huge.read(&cpu, 600), 6);
    assert_eq!(collapse(), Ok(()), "the access was heard of");
    huge.end(&cpu);
}

#[test]
fn merged_zeros_collapse_into_a_huge_page_and_are_counted_no_more() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    let mm = huge.kernel.mm;
    huge.write(&cpu, 0, 1);
    // In part first, so that there is a table for small pages.
    huge.zap(&cpu, 0, 511);
    huge.zap(&cpu, 511, 1);
    for number in 0..4 {
        huge.write(&cpu, number, number % 2);
    }
    for number in [0, 2] {
        mm.merge(&cpu, MergeInto::ZeroPage, (SPACE, page(number))).expect("zeros");
    }
    assert_eq!(huge.read(&cpu, 4), 0, "the zero page, too, by a fault");
    assert_eq!(huge.space.merged_zeros(&cpu), 2);
    let collapse = |max_none| mm.collapse(&cpu, huge.space, AT, max_none);
    assert_eq!((collapse(509), huge.space.merged_zeros(&cpu)), (Err(CollapseError::TooFew { pages: 2 }), 2));
    assert_eq!((collapse(510), huge.space.merged_zeros(&cpu)), (Ok(()), 0));
    assert_eq!([0, 1, 2, 3, 4].map(|number| huge.read(&cpu, number)), [0, 1, 0, 1, 0]);
    huge.end(&cpu);
}
