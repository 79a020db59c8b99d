//! What a driver learns from page tables about the pages of its file.

use crate::common::{DRIVER, Kernel, SPACE, area};
use machine::{Access, VirtAddr};
use mm::FolioFlags;

const AT: u64 = 0x40_0000_0000;

#[test]
fn written_pages_are_found_once_and_again_after_another_write() {
    let kernel = Kernel::build(1, 32, FolioFlags::SHMEM);
    let cpu = kernel.machine.attach().expect("a free CPU");
    for (number, (file, level)) in DRIVER.into_iter().enumerate() {
        let at = AT + ((number as u64 + 1) << 32);
        let pages = level.frames();
        kernel.mm.mmap(&cpu, SPACE, area(at, pages, file)).expect("a good area");
        let file = kernel.mm.file(file).expect("the file is there");
        let collect = || {
            let mut found = Vec::new();
            let count = kernel.mm.clean_mapping(&cpu, file, 0, pages, |page, pages| found.push((page, pages)));
            assert_eq!(count, Ok(found.len() as u64), "{level}");
            found
        };
        kernel.fault(&cpu, VirtAddr::new(at), Access::Read).expect("the driver has a frame");
        assert_eq!(collect(), [], "{level}: read only");
        kernel.fault(&cpu, VirtAddr::new(at), Access::Write).expect("the driver has a frame");
        assert_eq!(collect(), [(0, pages)], "{level}");
        assert_eq!(collect(), [], "{level}: cleaned");
        assert_eq!(kernel.mm.write_protect_mapping(&cpu, file, 0, pages), Ok(1), "{level}");
        assert_eq!(kernel.mm.write_protect_mapping(&cpu, file, 0, pages), Ok(0), "{level}: protected");
        kernel.fault(&cpu, VirtAddr::new(at), Access::Write).expect("the driver has a frame");
        assert_eq!(collect(), [(0, pages)], "{level}: written again");
        // Nothing is said of pages that were not asked for.
        kernel.fault(&cpu, VirtAddr::new(at), Access::Write).expect("the driver has a frame");
        assert_eq!(kernel.mm.clean_mapping(&cpu, file, pages, 8, |_, _| ()), Ok(0), "{level}");
        assert_eq!(kernel.mm.write_protect_mapping(&cpu, file, pages, 8), Ok(0), "{level}");
    }
}

#[test]
fn a_file_knows_whether_it_is_mapped() {
    let kernel = Kernel::build(1, 32, FolioFlags::SHMEM);
    let cpu = kernel.machine.attach().expect("a free CPU");
    let (id, level) = DRIVER[1];
    let file = kernel.mm.file(id).expect("the file is there");
    assert!(!kernel.mm.is_mapped(&cpu, file, 0, level.frames()));
    kernel.mm.mmap(&cpu, SPACE, area(AT, level.frames(), id)).expect("a good area");
    assert!(kernel.mm.is_mapped(&cpu, file, level.frames() - 1, 1));
    assert!(!kernel.mm.is_mapped(&cpu, file, level.frames(), 1));
    kernel.mm.munmap(&cpu, SPACE, VirtAddr::new(AT), 512).expect("the area is there");
    assert!(!kernel.mm.is_mapped(&cpu, file, 0, level.frames()));
}
