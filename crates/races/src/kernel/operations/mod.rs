//! The operations that cells may hold.
//!
//! | module | what |
//! |---|---|
//! | [`cell`] | reading the arguments of one |
//! | [`words`] | which there are, and what each is |

mod cell;
mod words;

use machine::{Access, ProtectionKey, VirtAddr};
use mm::{Area, AreaRights, FileId, Foll, SpaceId, UffdProtection, Usage};

use super::setup::Setup;
use crate::arguments::Arguments;
use crate::error::{Error, Problem};
use crate::protection_keys::WritePkru;
use crate::race::Race;
use crate::syntax::{Operation, Variant};
use cell::Cell;

/// What an operation does. `space` is that of the CPU, unless the operation names another.
pub(super) enum Action {
    /// `r = gup(x, pin, write)`, `r = gup_fast(...)` (never falls back), `r = gup_remote(...)`: the register gets the number of the first frame, 0 if there is none.
    Gup { space: SpaceId, start: VirtAddr, pages: u64, flags: Foll, whose: Whose, into: usize },
    /// `release(r)`: gives back what a `gup` into this register took.
    Release { from: usize, done: Access },
    /// `r = touch(x, write=1)`: user code accesses the address until it succeeds.
    Touch { address: VirtAddr, user: User },
    /// `r = push(x)`: user code stores to the address as to its shadow stack, once.
    Push { address: VirtAddr },
    /// `zap(x)`: MADV_DONTNEED.
    Zap { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `guard(x)`: MADV_GUARD_INSTALL.
    Guard { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `unguard(x)`: MADV_GUARD_REMOVE.
    Unguard { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `unmap_mapping(f, 0, 1)`: zap by rmap.
    UnmapMapping { file: FileId, first: u64, pages: u64 },
    /// `replace(f, 0, B)`: another folio in the place of a page of a cached file.
    Replace { file: FileId, page: u64, frame: Option<usize> },
    /// `revoke(f, 0, B)`: a driver takes a frame back, and has another in its place or none. The old one is freed.
    Revoke { file: FileId, page: u64, frame: Option<usize> },
    /// `move(f, 0, B)`: as `revoke`, and what the old frame held is copied to the new one.
    Move { file: FileId, page: u64, frame: usize, copy: Copy },
    /// `kill(f)`: the device goes whose memory the file maps.
    Kill { file: FileId },
    /// `r = follow(x, write=1)`: finds out which frame a driver has mapped, and lets a device access it while that is certain.
    Follow { space: SpaceId, start: VirtAddr, device: Option<Device> },
    /// `r = walk(x)`: a walker that knows small pages only.
    Walk { space: SpaceId, address: VirtAddr },
    /// `r = dump(x, rcu)`: reads the entries on the way to the address without a lock.
    Dump { space: SpaceId, address: VirtAddr, section: Section },
    /// `r = ptdump(x, pages=1)`: the engine's own dump of the range.
    Ptdump { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `mirror(x, write)`: a device gets the page into its own page table.
    Mirror { space: SpaceId, address: VirtAddr, access: Access },
    /// `r = device(x, write=1)`: a device accesses an address by its own page table.
    Device { space: SpaceId, address: VirtAddr, device: Device },
    /// `r = io(r0, write=1)`: a device accesses the frame in a register.
    Io { from: usize, device: Device },
    /// `write_protect(x)`.
    WriteProtect { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `uffd_copy(x, write=5, wp)`: UFFDIO_COPY, of pages that hold this word.
    UffdCopy { space: SpaceId, start: VirtAddr, pages: u64, word: u64, protection: UffdProtection },
    /// `uffd_protect(x)`: UFFDIO_WRITEPROTECT.
    UffdProtect { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `uffd_unprotect(x)`.
    UffdUnprotect { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `r = harvest(x, dirty)`: whether pages were used, and forgets it.
    Harvest { space: SpaceId, start: VirtAddr, pages: u64, clear: Usage },
    /// `enter_lazy(kernel=q)`: the CPU idles, with the page table of its address space loaded.
    EnterLazy { space: SpaceId, kernel: SpaceId },
    /// `leave_lazy()`: it comes back.
    LeaveLazy { space: SpaceId },
    /// `mmap(x)`: an area that is not there at the start.
    Mmap { space: SpaceId, area: Area },
    /// `swap_out(x, pages=1)`: the pages that are mapped there go to swap, with one flush for all.
    SwapOut { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `fail(x)`: the memory of the page that is mapped there fails.
    Fail { space: SpaceId, address: VirtAddr },
    /// `migrate(x)`: the folio that is mapped there moves to other frames.
    Migrate { space: SpaceId, address: VirtAddr },
    /// `migrate_range(x, pages=1)`.
    MigrateRange { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `numa_hint(x, pages=1)`: the next access to each page faults, so that the page can move.
    NumaHint { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `write_back(f, 0)`: a page of a cached file is cleaned and written out.
    WriteBack { file: FileId, page: u64 },
    /// `drop_page(f, 0)`: a clean page of a cached file is taken out of memory.
    DropPage { file: FileId, page: u64 },
    /// `fork(q)`: the address space `q` becomes a child of the CPU's.
    Fork { space: SpaceId, child: SpaceId },
    /// `share_table(y, x)`: `y` gets the table of leaves that `x` has.
    ShareTable { to: (SpaceId, VirtAddr), from: (SpaceId, VirtAddr) },
    /// `merge(x, y)`: the page that is mapped at `x` takes the place of the equal one at `y`.
    Merge { into: (SpaceId, VirtAddr), from: (SpaceId, VirtAddr) },
    /// `merge_zeros(y)`: the zero page takes the place of the page of zeros at `y`.
    MergeZeros { from: (SpaceId, VirtAddr) },
    /// `unmerge(x, pages=1)`.
    Unmerge { space: SpaceId, start: VirtAddr, pages: u64 },
    /// `drain(A)`: what was used lately comes on the kernel's list of used pages.
    Drain { frame: usize },
    /// `mprotect(x, rights=r)`; with `key=1` pkey_mprotect.
    Mprotect { space: SpaceId, start: VirtAddr, pages: u64, rights: AreaRights, key: Option<ProtectionKey> },
    /// `wrpkru(key=1, rights=none)`: what the thread may do by a key from now on.
    WritePkru(WritePkru),
    /// `mremap(x, y)`: moves pages to the address of `y`, which is `later`.
    Mremap { space: SpaceId, from: VirtAddr, pages: u64, to: VirtAddr },
    /// `collapse(x)`: pages become one huge page.
    Collapse { space: SpaceId, address: VirtAddr },
    /// `split_leaf(x)`: a huge leaf becomes a table of small ones.
    SplitLeaf { space: SpaceId, address: VirtAddr },
    /// `split_folio(x)`: the large folio that is mapped there becomes small ones.
    SplitFolio { space: SpaceId, address: VirtAddr },
    /// `munmap(x)`, `munmap(x+0x1000, pages=1)`.
    Munmap { space: SpaceId, start: VirtAddr, pages: u64 },
}

/// As whose GUP takes an address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whose {
    /// The thread's own.
    Own,
    /// Somebody else's.
    Another,
}

/// What user code does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum User {
    /// Accesses the page; what it moves does not matter.
    Access(Access),
    /// Loads its word.
    Load,
    /// Stores this.
    Store(u64),
}

/// What a device does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Device {
    Load,
    Store(u64),
}

/// What keeps tables alive under a walker without locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Section {
    /// Nothing.
    None,
    /// An RCU read-side section, with interrupts on.
    Rcu,
    /// Interrupts are off, which is an RCU read-side section as well.
    IrqOff,
}

/// When a driver copies what it moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Copy {
    /// When nobody can reach the old frame any more.
    Revoked,
    /// Before it takes the old frame away.
    Early,
}

/// Whether a CPU is lazy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TlbMode {
    Lazy,
    Awake,
}

impl Action {
    /// Whether the CPU is lazy after it. `None`: it cannot be done by a CPU that is `mode`, or not so often.
    fn mode_after(&self, mode: TlbMode, repeat: Repeat) -> Option<TlbMode> {
        match (self, mode, repeat) {
            (Self::EnterLazy { .. }, TlbMode::Awake, Repeat::Once) => Some(TlbMode::Lazy),
            (Self::LeaveLazy { .. }, TlbMode::Lazy, Repeat::Once) => Some(TlbMode::Awake),
            (Self::EnterLazy { .. } | Self::LeaveLazy { .. }, ..)
            | (Self::Touch { .. } | Self::Push { .. } | Self::Gup { .. }, TlbMode::Lazy, _) => None,
            _ => Some(mode),
        }
    }

    /// The page that it speaks of, and whose it is, for one that user code or GUP accesses. `own` is the space of the CPU.
    pub(super) fn page(&self, own: usize) -> Option<(VirtAddr, usize)> {
        match *self {
            Self::Gup { space, start, .. } => Some((start, usize::from(space.number()))),
            Self::Touch { address, .. } | Self::Push { address } => Some((address, own)),
            Self::Follow { space, start, .. } => Some((start, usize::from(space.number()))),
            Self::Mirror { space, address, .. } | Self::Device { space, address, .. } => {
                Some((address, usize::from(space.number())))
            }
            _ => None,
        }
    }
}

/// One operation of one CPU.
pub(super) struct Step {
    pub(super) action: Action,
    /// The register that gets its result.
    pub(super) into: Option<usize>,
    /// As the file writes it.
    pub(super) text: String,
    /// Its name.
    pub(super) word: String,
    /// Whether the variant's `rounds` repeats it (together with its neighbours that are repeated, too).
    pub(super) repeat: Repeat,
}

/// How often an operation runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    Once,
    /// As often as the variant's `rounds` says.
    Rounds,
}

/// The most registers that one CPU's results can be in: what the lab can report.
const MOST_REGISTERS: usize = 16;

/// The operations of one CPU, and the registers that hold their results.
#[derive(Default)]
pub(super) struct Column {
    pub(super) steps: Vec<Step>,
    pub(super) registers: Vec<String>,
}

impl Column {
    /// Gives meaning to what the NMI handler of the CPU with this number does. Its registers lie beside those of the program.
    pub(super) fn handler(
        race: &Race,
        setup: &Setup,
        cpu: usize,
        operations: &[Operation],
        (variant, program): (Option<&Variant>, &Self),
    ) -> Result<Self, Error> {
        let column = Self { steps: Vec::new(), registers: program.registers.clone() };
        column.read(race, setup, cpu, operations, variant)
    }

    /// Gives meaning to what the CPU with this number does.
    pub(super) fn new(
        race: &Race,
        setup: &Setup,
        cpu: usize,
        operations: &[Operation],
        variant: Option<&Variant>,
    ) -> Result<Self, Error> {
        Self::default().read(race, setup, cpu, operations, variant)
    }

    fn read(
        mut self,
        race: &Race,
        setup: &Setup,
        cpu: usize,
        operations: &[Operation],
        variant: Option<&Variant>,
    ) -> Result<Self, Error> {
        let column = &mut self;
        let mut mode = TlbMode::Awake;
        for operation in operations {
            let mut arguments = Arguments::new(race, &operation.word, &operation.arguments);
            let takes_part = arguments.takes_part(variant)?;
            let repeat = arguments.one_of(&[("rounds", Repeat::Rounds)], Repeat::Once);
            let into = match &operation.result {
                Some(register) => Some(column.register(race, &register.node, operation)?),
                None => None,
            };
            let own = SpaceId::new(setup.space_of(cpu) as u16);
            let mut cell = Cell { race, setup, own, operation, arguments, into, column };
            let action = words::read(&mut cell)?;
            cell.arguments.finish()?;
            if takes_part {
                mode = action.mode_after(mode, repeat).ok_or_else(|| {
                    let why = format!("CPU{cpu} is {} here", if mode == TlbMode::Lazy { "lazy" } else { "not lazy" });
                    let right = "`enter_lazy()` and `leave_lazy()` in turns and not repeated, without `touch` and `gup` in between";
                    let problem = Problem::Impossible { why, right: right.to_owned() };
                    Error::new(&race.source, operation.span, problem)
                })?;
                let word = operation.word.node.clone();
                column.steps.push(Step { action, into, text: operation.without_variants().to_string(), word, repeat });
            }
        }
        Ok(self)
    }

    /// Whether an operation depends on what is in frames.
    pub(super) fn moves_words(&self) -> bool {
        self.steps.iter().any(|step| {
            matches!(
                step.action,
                Action::Touch { user: User::Load | User::Store(_), .. }
                    | Action::Io { .. }
                    | Action::UffdCopy { .. }
                    | Action::Device { .. }
                    | Action::Follow { device: Some(_), .. }
            )
        })
    }

    /// The protection keys that operations give to pages.
    pub(super) fn keys(&self) -> impl Iterator<Item = ProtectionKey> {
        self.steps.iter().filter_map(|step| match step.action {
            Action::Mprotect { key, .. } => key,
            _ => None,
        })
    }

    /// The address spaces that operations make: parent and child.
    pub(super) fn children(&self) -> impl Iterator<Item = (usize, usize)> {
        let number = |id: SpaceId| usize::from(id.number());
        self.steps.iter().filter_map(move |step| match step.action {
            Action::Fork { space, child } => Some((number(space), number(child))),
            _ => None,
        })
    }

    /// The number of the register of this name.
    fn register(&mut self, race: &Race, name: &str, operation: &Operation) -> Result<usize, Error> {
        if let Some(known) = self.registers.iter().position(|known| known == name) {
            return Ok(known);
        }
        if self.registers.len() == MOST_REGISTERS {
            let why = format!("a CPU has at most {MOST_REGISTERS} registers");
            let problem = Problem::Impossible { why, right: "use one again".to_owned() };
            return Err(Error::new(&race.source, operation.span, problem));
        }
        self.registers.push(name.to_owned());
        Ok(self.registers.len() - 1)
    }
}
