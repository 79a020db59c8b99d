//! userfaultfd: what is handed over and to whom it is not, what is filled in, how long protection lasts, who is refused; and memory that comes while it is used.

mod keeps;
mod missing;
mod post_copy;
mod protect;
mod refused;

use hosted::ThreadCpu;
use machine::{Access, VirtAddr};
use mm::{Area, FaultError, Foll, SpaceId, UffdError, UffdFault, UffdFillError, UffdModes, UffdProtection, UffdReason};

use crate::audit::{Account, Hold};
use crate::memory::{FILE_PAGES, Kernel, SPACES};

const ONE: SpaceId = SpaceId::new(0);
const TWO: SpaceId = SpaceId::new(1);
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const ELSEWHERE: VirtAddr = VirtAddr::new(0x50_0000_0000);
const TABLES: u64 = 48;
const MISSING: UffdModes = UffdModes::MISSING;
const PROTECT: UffdModes = UffdModes::WRITE_PROTECT;

const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

const fn missing(number: u64, access: Access) -> UffdFault {
    UffdFault { address: page(number), access, reason: UffdReason::Missing }
}

const fn protected(at: VirtAddr) -> UffdFault {
    UffdFault { address: at, access: Access::Write, reason: UffdReason::WriteProtected }
}

struct World {
    kernel: Kernel,
    cpu: ThreadCpu,
}

impl World {
    fn new() -> Self {
        let (kernel, cpu) = Kernel::alone(TABLES);
        kernel.fill_file(&cpu);
        Self { kernel, cpu }
    }

    fn register(&self, area: Area, modes: UffdModes) {
        self.kernel.mm.mmap(&self.cpu, ONE, area).expect("a good area");
        self.kernel.mm.uffd_register(&self.cpu, ONE, area.start, area.pages, modes).expect("memory, or a file");
    }

    fn store(&self, at: VirtAddr, word: u64) -> Result<(), FaultError> {
        self.kernel.store(&self.cpu, 0, at, word)
    }

    fn load(&self, at: VirtAddr) -> Result<u64, FaultError> {
        self.kernel.load(&self.cpu, 0, at)
    }

    fn copy(&self, at: VirtAddr, word: u64, protection: UffdProtection) -> Result<(), UffdFillError> {
        copy(&self.kernel, &self.cpu, at, word, protection)
    }

    fn protect(&self, at: VirtAddr, pages: u64) -> Result<(), UffdError> {
        self.kernel.mm.uffd_write_protect(&self.cpu, self.kernel.space(0), at, pages)
    }

    fn unprotect(&self, at: VirtAddr, pages: u64) -> Result<(), UffdError> {
        self.kernel.mm.uffd_write_unprotect(&self.cpu, self.kernel.space(0), at, pages)
    }

    /// From now on stores to what is protected go on at once.
    fn resolve_by_unprotecting(&self) {
        let kernel = self.kernel.clone();
        self.kernel.uffd.resolve_by(move |cpu, fault| {
            assert_eq!(fault.reason, UffdReason::WriteProtected);
            kernel.mm.uffd_write_unprotect(cpu, kernel.space(0), fault.address, 1).expect("registered");
        });
    }

    /// A store to the page is handed over once, and succeeds when it has been resolved.
    fn assert_protected(&self, at: VirtAddr) {
        self.resolve_by_unprotecting();
        assert_eq!(self.kernel.uffd.take_told(), [], "before {at}");
        self.store(at, 77).expect("memory");
        assert_eq!(self.kernel.uffd.take_told(), [protected(at)]);
        assert_eq!(self.load(at), Ok(77));
        self.store(at, 78).expect("memory");
        assert_eq!(self.kernel.uffd.take_told(), [], "not protected any more");
    }

    /// Nobody is told of a store.
    fn assert_not_protected(&self, space: u16, at: VirtAddr) {
        self.kernel.store(&self.cpu, space, at, 79).expect("memory");
        assert_eq!(self.kernel.uffd.take_told(), [], "{at}");
    }

    fn pin(&self, at: VirtAddr, flags: Foll) -> mm::Run {
        let mut got = None;
        let pinned = self.kernel.mm.gup(&self.cpu, self.kernel.space(0), at, 1, flags, |run| got = Some(run));
        assert_eq!(pinned, Ok(1), "{flags:?}");
        got.expect("one run")
    }

    fn release(&self, run: mm::Run) {
        self.kernel.mm.release(&self.cpu, run, Access::Write).expect("held");
    }

    /// Checks every count there is, and that nothing protected can be written.
    fn audit(&self) {
        let spaces: Vec<_> = (0..SPACES).map(|number| self.kernel.space(number)).collect();
        let zero = mm::FrameSource::zero_page(self.kernel.data).expect("the first frame");
        let account = Account::of(self.kernel.tables, zero, &spaces);
        let files = (0..FILE_PAGES).filter_map(|page| self.kernel.file_frame(page)).chain([zero]).map(Hold::one);
        let in_use: Vec<_> = self.kernel.data.leaks().into_iter().map(|leak| leak.frame).collect();
        account.check_counts(&self.cpu, self.kernel.data, in_use, files);
    }

    fn end(self) {
        self.audit();
        for space in [ONE, TWO] {
            for at in [AT, ELSEWHERE] {
                self.kernel.mm.munmap(&self.cpu, space, at, 1 << 20).expect("the tables are whole");
            }
        }
        self.kernel.empty_file(&self.cpu);
        self.kernel.assert_all_is_back(TABLES);
    }
}

/// Resolves a missing page of the first address space, with this word at its beginning.
fn copy(
    kernel: &Kernel,
    cpu: &ThreadCpu,
    at: VirtAddr,
    word: u64,
    protection: UffdProtection,
) -> Result<(), UffdFillError> {
    kernel.mm.uffd_copy(cpu, kernel.space(0), (at, 1), protection, |number, frame| {
        assert_eq!(number, 0);
        kernel.data.write(frame, 0, word);
    })
}
