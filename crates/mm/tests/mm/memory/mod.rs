//! A kernel with memory: address spaces whose user code loads and stores, frames with contents, a swap device, and failures where a test wants them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use hosted::{DataFrames, FailingTables, Failures, FrameArena, MemorySwap, ThreadCpu, Threads, UserMemory};
use machine::{Access, Cpu, Frame, ReaderLock, VirtAddr, Word, Word64};
use mm::folio::count_fits;
use mm::lifetime::ByRcu;
use mm::order::{FlushAfterUnlock, SpecialCheck};
use mm::shootdown::ByIpi;
use mm::table_check::{CheckedFrame, CheckedFrames, DoubleUse, FrameUses};
use mm::{
    AddressSpace, Area, AreaRights, AreaSlot, Event, FaultError, File, FileId, FileKind, FolioFlags, FolioMapping,
    FrameSource, Invalidations, Mapping, Membership, MemoryMap, Mm, NoDrivers, Notify, NumaPlacement, Page, PageSlot,
    Parts, Platform, Protocols, Shootdown, Sound, SpaceId, SpacePart, StackLimits, TableCheck, Tags, Trace, UffdFault,
    UffdHandler,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::{
    Entry, FourLevel, Level, OutOfFrames, PhysicalWidth, ReadOnce, Root, TableMemory, Tables, Translation, Whole, Wide,
    ZeroThenLink,
};

/// The engine with its defaults for x86-64.
pub(crate) struct WithMemory;

impl Platform for WithMemory {
    type Cpu = ThreadCpu;
    type Mode = FourLevel;
    type Tables = FailingTables;
    type Map = Checked;
    type Frames = Nodes;
    type Swap = MemorySwap<'static>;
    type Notify = Shadow;
    type Drivers = NoDrivers;
    type Uffd = Reader;
    type Trace = Recorder;
    type Read = ReadOnce<Wide>;
    type Write = Write;
    type Recheck = Atomic;
    type Publish = ZeroThenLink;
    type FlushOrder = FlushAfterUnlock;
    type RemoteFlush = ByIpi;
    type Lifetime = ByRcu;
    type Special = Softw1;
    type Guards = Sound;
}

/// Every entry is counted.
pub(crate) type Write = TableCheck<Whole, &'static Checked>;

/// Where the parts of address spaces begin. What both have in common is the root table alone.
const PARTS: [VirtAddr; 2] = [VirtAddr::new(0), VirtAddr::new(0x80_0000_0000)];

const MODE: FourLevel = FourLevel::new(PhysicalWidth::MAX);
const READ: ReadOnce<Wide> = ReadOnce::new();

fn protocols(checked: &'static Checked) -> Protocols<WithMemory> {
    Protocols {
        mode: MODE,
        read: READ,
        write: TableCheck { write: Whole, frames: checked, special: Softw1.mark(), guards: Sound },
        recheck: Atomic,
        publish: ZeroThenLink,
        flush_order: FlushAfterUnlock,
        remote_flush: ByIpi,
        lifetime: ByRcu,
        special: Softw1,
        guards: Sound,
    }
}

/// The records of data, and how entries map it.
pub(crate) struct Checked {
    data: &'static DataFrames,
    uses: Vec<FrameUses>,
    broken: Mutex<Vec<DoubleUse>>,
    between_looks: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Checked {
    /// Acts when somebody has found out to which folio a frame belongs, and is about to take a reference to that.
    pub(crate) fn between_looks(&self, act: impl FnOnce() + Send + 'static) {
        *self.between_looks.lock().expect("nobody panics with it") = Some(Box::new(act));
    }

    /// What was reported, and is now forgotten.
    pub(crate) fn take_reports(&self) -> Vec<DoubleUse> {
        std::mem::take(&mut *self.broken.lock().expect("nobody panics with it"))
    }

    /// The frames that are mapped.
    fn in_use(&self) -> Vec<Frame> {
        let is_used = |uses: &FrameUses| uses.words().iter().any(|word| word.atomic_load(Ordering::SeqCst) != 0);
        let mapped = self.uses.iter().enumerate().filter(|(_, uses)| is_used(uses));
        mapped.map(|(index, _)| FIRST_DATA.wrapping_add(index as u64)).collect()
    }
}

impl CheckedFrames for Checked {
    fn frame(&self, frame: Frame) -> Option<CheckedFrame<'_>> {
        let uses = self.uses.get(frame.number().wrapping_sub(FIRST_DATA.number()) as usize)?;
        Some(CheckedFrame { page: self.data.record(frame)?, uses })
    }

    fn report(&self, broken: DoubleUse) {
        self.broken.lock().expect("nobody panics with it").push(broken);
    }
}

impl MemoryMap<ThreadCpu> for Checked {
    fn page(&self, cpu: &ThreadCpu, frame: Frame) -> Option<&Page> {
        self.data.page(cpu, frame)
    }

    fn release(&self, cpu: &ThreadCpu, folio: Membership) {
        self.check_free(cpu, folio);
        self.data.release(cpu, folio);
    }

    fn may_count(&self, count: u32, more: u32) -> bool {
        let act = self.between_looks.lock().expect("nobody panics with it").take();
        act.into_iter().for_each(|act| act());
        count_fits(count, more)
    }
}

/// Where frames with data come from, and whether a page is where it should be, as a test says.
pub(crate) struct Nodes {
    data: &'static DataFrames,
    all_move: AtomicBool,
    asked: AtomicU64,
}

impl Nodes {
    /// Whether every page that has a hint had better move.
    pub(crate) fn let_all_move(&self, all_move: bool) {
        self.all_move.store(all_move, Ordering::Relaxed);
    }

    /// How often faults have asked.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl FrameSource<ThreadCpu> for Nodes {
    fn allocate(&self, cpu: &ThreadCpu, order: u8) -> Result<Frame, OutOfFrames> {
        self.data.allocate(cpu, order)
    }

    fn zero(&self, cpu: &ThreadCpu, folio: Membership) {
        self.data.zero(cpu, folio);
    }

    fn copy(&self, cpu: &ThreadCpu, from: Frame, to: Frame, pages: u64) {
        self.data.copy(cpu, from, to, pages);
    }

    fn equal(&self, cpu: &ThreadCpu, one: Frame, other: Frame) -> bool {
        self.data.equal(cpu, one, other)
    }

    fn placement(&self, _: &ThreadCpu, _: Frame) -> NumaPlacement {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.all_move.load(Ordering::Relaxed) { NumaPlacement::Moves } else { NumaPlacement::Stays }
    }

    fn zero_page(&self) -> Option<Frame> {
        FrameSource::<ThreadCpu>::zero_page(self.data)
    }
}

const FIRST_TABLE: Frame = Frame::new(0x100);
const FIRST_DATA: Frame = Frame::new(1 << 20);
const DATA_FRAMES: u64 = 1 << 12;
const SWAP_PAGES: usize = 1 << 10;
/// How many address spaces there are.
pub(crate) const SPACES: u16 = 3;
/// The address space whose user addresses have tags in the bits 62 to 57.
pub(crate) const TAGGED: u16 = 2;
/// An address space whose stacks are short.
pub(crate) const LIMITED: (u16, StackLimits) = (2, StackLimits { gap: 2, pages: 8 });
/// Anonymous memory.
pub(crate) const ANONYMOUS: FileId = FileId::new(0);
/// A file of [`FILE_PAGES`] pages, each filled with its number.
pub(crate) const CACHED: FileId = FileId::new(1);
pub(crate) const FILE_PAGES: u64 = 64;
/// A file of two huge pages.
pub(crate) const CACHED_HUGE: FileId = FileId::new(2);
/// How many areas an address space has room for.
pub(crate) const AREAS: usize = 16;
/// How many areas can map [`CACHED`].
pub(crate) const FILE_MAPPINGS: usize = 40;

/// A secondary TLB of address space 0: pages that a device may access.
#[derive(Default)]
pub(crate) struct Shadow {
    pub(crate) invalidations: Invalidations,
    pub(crate) pages: Mutex<BTreeMap<VirtAddr, Entry>>,
    /// How many pages were forgotten.
    pub(crate) forgotten: AtomicU64,
}

impl Notify<ThreadCpu> for Shadow {
    fn start(&self, cpu: &ThreadCpu, _: &AddressSpace<'_>, start: VirtAddr, end: VirtAddr) {
        self.invalidations.start(cpu);
        let mut pages = self.pages.lock().expect("nobody panics with it");
        let before = pages.len();
        pages.retain(|page, _| !(start..end).contains(page));
        self.forgotten.fetch_add((before - pages.len()) as u64, Ordering::Relaxed);
    }

    fn end(&self, cpu: &ThreadCpu, _: &AddressSpace<'_>, _: VirtAddr, _: VirtAddr) {
        self.invalidations.end(cpu);
    }
}

/// What resolves a fault that is handed over.
type Resolve = Box<dyn FnMut(&ThreadCpu, UffdFault) + Send>;

/// Who reads of faults that are handed over.
pub(crate) struct Reader {
    told: Mutex<Vec<UffdFault>>,
    resolve: Mutex<Option<Resolve>>,
    wakes: Word64,
}

impl Default for Reader {
    fn default() -> Self {
        Self { told: Mutex::default(), resolve: Mutex::default(), wakes: Word64::new(0) }
    }
}

impl Reader {
    /// What was handed over since this was last asked.
    pub(crate) fn take_told(&self) -> Vec<UffdFault> {
        std::mem::take(&mut *self.told.lock().expect("nobody panics with it"))
    }

    /// From now on each fault is resolved like this, by another CPU so to speak, after it was told and before it waits.
    pub(crate) fn resolve_by(&self, resolve: impl FnMut(&ThreadCpu, UffdFault) + Send + 'static) {
        *self.resolve.lock().expect("nobody panics with it") = Some(Box::new(resolve));
    }
}

impl UffdHandler<ThreadCpu> for Reader {
    fn wait(&self, cpu: &ThreadCpu, _: &AddressSpace<'_>, fault: UffdFault, must_wait: impl FnOnce() -> bool) {
        let known = cpu.load(&self.wakes);
        self.told.lock().expect("nobody panics with it").push(fault);
        if let Some(resolve) = &mut *self.resolve.lock().expect("nobody panics with it") {
            resolve(cpu, fault);
        }
        if must_wait() {
            cpu.await_value(&self.wakes, |now| now != known);
        }
    }

    fn wake(&self, cpu: &ThreadCpu, _: &AddressSpace<'_>, _: VirtAddr, _: VirtAddr) {
        cpu.fetch_add(&self.wakes, 1);
    }
}

/// What another CPU does right before such an event.
type Act = (fn(&Event) -> bool, Box<dyn FnOnce() + Send>);

/// Who remembers what happens while a test wants to know, and lets another CPU act in the middle of an operation.
#[derive(Default)]
pub(crate) struct Recorder {
    records: AtomicBool,
    events: Mutex<Vec<(usize, Event)>>,
    act: Mutex<Option<Act>>,
}

impl Recorder {
    /// What happens meanwhile, and on which CPU.
    pub(crate) fn during(&self, operate: impl FnOnce()) -> Vec<(usize, Event)> {
        self.records.store(true, Ordering::SeqCst);
        operate();
        self.records.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.events.lock().expect("nobody panics with it"))
    }

    /// Right before the next such event another CPU does this. Whoever is in the middle of an operation then must hold no lock that it needs, and translate by
    /// no address space that it flushes.
    pub(crate) fn before(&self, event: fn(&Event) -> bool, act: impl FnOnce() + Send + 'static) {
        *self.act.lock().expect("nobody panics with it") = Some((event, Box::new(act)));
    }

    /// It has been done.
    pub(crate) fn has_acted(&self) -> bool {
        self.act.lock().expect("nobody panics with it").is_none()
    }
}

impl Trace<ThreadCpu> for Recorder {
    fn event(&self, cpu: &ThreadCpu, event: Event) {
        let act = self.act.lock().expect("nobody panics with it").take_if(|(before, _)| before(&event));
        if let Some((_, act)) = act {
            act();
        }
        if self.records.load(Ordering::SeqCst) {
            self.events.lock().expect("nobody panics with it").push((cpu.id().index(), event));
        }
    }
}

#[derive(Clone)]
pub(crate) struct Kernel {
    pub(crate) machine: Arc<Threads>,
    pub(crate) mm: &'static Mm<'static, WithMemory>,
    pub(crate) data: &'static DataFrames,
    pub(crate) nodes: &'static Nodes,
    pub(crate) tables: &'static FailingTables,
    pub(crate) swap: &'static MemorySwap<'static>,
    pub(crate) failures: Arc<Failures>,
    pub(crate) shadow: &'static Shadow,
    pub(crate) uffd: &'static Reader,
    pub(crate) checked: &'static Checked,
    pub(crate) recorder: &'static Recorder,
    slots: &'static [PageSlot],
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn leak_all<T>(values: impl IntoIterator<Item = T>) -> &'static [T] {
    Vec::leak(values.into_iter().collect())
}

impl Kernel {
    /// One CPU, which translates by the first address space.
    pub(crate) fn alone(tables: u64) -> (Self, ThreadCpu) {
        let kernel = Self::build(1, tables);
        let cpu = kernel.enter_first();
        (kernel, cpu)
    }

    /// A CPU, which translates by the first address space.
    pub(crate) fn enter_first(&self) -> ThreadCpu {
        let cpu = self.machine.attach().expect("a free CPU");
        self.mm.enter(&cpu, self.space(0));
        cpu
    }

    /// A kernel on `cpus` CPUs with room for `tables` tables.
    pub(crate) fn build(cpus: u32, tables: u64) -> Self {
        Self::build_in_parts(cpus, tables, |_| PARTS.to_vec())
    }

    /// The same with address spaces whose parts begin where `starts` says, for the number of each.
    pub(crate) fn build_in_parts(cpus: u32, tables: u64, starts: impl Fn(u16) -> Vec<VirtAddr>) -> Self {
        let mm: &'static OnceLock<&'static Mm<'static, WithMemory>> = leak(OnceLock::new());
        let handler = move |cpu: &ThreadCpu, _| mm.get().expect("interrupts come later").handle_ipi(cpu);
        let machine = Threads::new(cpus, handler).expect("a small machine");
        let cpu = machine.attach().expect("a free CPU");
        let failures = Failures::none();
        let arena = FrameArena::new(FIRST_TABLE, tables).expect("address space for tables");
        let tables = leak(FailingTables { arena, failures: failures.clone() });
        let data = leak(DataFrames::new(FIRST_DATA, DATA_FRAMES, failures.clone()).expect("address space for data"));
        let uses = (0..DATA_FRAMES).map(|_| FrameUses::new()).collect();
        let checked: &'static Checked =
            leak(Checked { data, uses, broken: Mutex::new(Vec::new()), between_looks: Mutex::new(None) });
        let swap = leak(MemorySwap::new(data, SWAP_PAGES, failures.clone()));
        let space = |number| {
            let root = tables.arena.allocate().expect("a frame for the root");
            cpu.zero(tables.arena.table(root).expect("a frame of the arena").cells());
            let root = Root::new(&MODE, root.start()).expect("frames are aligned");
            let tags = if number == TAGGED { Tags::Lam57 } else { Tags::None };
            let part = |start| {
                SpacePart::new(start, leak_all((0..AREAS).map(|_| AreaSlot::new())))
                    .with_reader_locks(leak_all((0..number % 3).map(|_| ReaderLock::new())))
            };
            let parts = leak_all(starts(number).into_iter().map(part));
            let space = AddressSpace::in_parts(root, parts).expect("sorted").with_tags(tags);
            if number == LIMITED.0 { space.with_stack_limits(LIMITED.1) } else { space }
        };
        let spaces = leak_all((0..SPACES).map(space));
        let slots = leak_all((0..FILE_PAGES).map(|_| PageSlot::new(None)));
        let huge_slots = leak_all([PageSlot::new(None), PageSlot::new(None)]);
        let mappings = |count: usize| leak_all((0..count).map(|_| Mapping::new()));
        let files = leak_all([
            File::new(FileKind::Anonymous, Level::Pte, &[], mappings(64)),
            File::new(FileKind::Cached, Level::Pte, slots, mappings(FILE_MAPPINGS)),
            File::new(FileKind::Cached, Level::Pmd, huge_slots, mappings(8)),
        ]);
        let nodes: &'static Nodes = leak(Nodes { data, all_move: AtomicBool::new(false), asked: AtomicU64::new(0) });
        let shadow: &'static Shadow = leak(Shadow::default());
        let recorder: &'static Recorder = leak(Recorder::default());
        let uffd: &'static Reader = leak(Reader::default());
        let parts = Parts {
            tables,
            map: checked,
            frames: nodes,
            swap,
            notify: shadow,
            drivers: &NoDrivers,
            uffd,
            trace: recorder,
            spaces,
            files,
            shootdown: leak(Shootdown::new()),
        };
        let engine: &'static Mm<_> = leak(Mm::new(protocols(checked), parts));
        assert!(mm.set(engine).is_ok(), "set once");
        drop(cpu);
        Self { machine, mm: engine, data, nodes, tables, swap, failures, shadow, uffd, checked, recorder, slots }
    }

    pub(crate) fn space(&self, number: u16) -> &'static AddressSpace<'static> {
        self.mm.space(SpaceId::new(number)).expect("there are so many")
    }

    fn user(&self) -> UserMemory<'_, FourLevel, FailingTables> {
        UserMemory { mode: MODE, tables: self.tables, data: self.data }
    }

    /// User code of space `number` stores, with as many faults as that takes.
    pub(crate) fn store(&self, cpu: &ThreadCpu, number: u16, at: VirtAddr, value: u64) -> Result<(), FaultError> {
        self.access(cpu, number, at, Access::Write, |word| word.atomic_store(value, Ordering::SeqCst))
    }

    /// User code of space `number` loads.
    pub(crate) fn load(&self, cpu: &ThreadCpu, number: u16, at: VirtAddr) -> Result<u64, FaultError> {
        self.access(cpu, number, at, Access::Read, |word| word.atomic_load(Ordering::SeqCst))
    }

    /// User code of space `number` adds 1 by a locked instruction, and gets what was there.
    pub(crate) fn increment(&self, cpu: &ThreadCpu, number: u16, at: VirtAddr) -> Result<u64, FaultError> {
        self.access(cpu, number, at, Access::Write, |word| word.atomic_fetch_add(1))
    }

    fn access<R>(
        &self,
        cpu: &ThreadCpu,
        number: u16,
        at: VirtAddr,
        kind: Access,
        access: impl Fn(&machine::Word64) -> R,
    ) -> Result<R, FaultError> {
        let space = self.space(number);
        loop {
            match self.user().access(cpu, space.root(), at, kind, &access) {
                Ok(result) => return Ok(result),
                Err(fault) => self.mm.handle_fault(cpu, space, fault)?,
            }
        }
    }

    /// The page tables of space `number`.
    pub(crate) fn page_tables(&self, number: u16) -> Tables<'_, FourLevel, FailingTables, ReadOnce<Wide>, Write> {
        Tables {
            mode: &MODE,
            memory: self.tables,
            reader: &READ,
            writer: &self.mm.protocols().write,
            root: self.space(number).root(),
        }
    }

    /// The leaf that translates `at` in space `number`.
    pub(crate) fn leaf_at(&self, cpu: &ThreadCpu, number: u16, at: VirtAddr) -> Option<Translation> {
        cpu.rcu_read_lock();
        let found = self.page_tables(number).translate(cpu, at).ok();
        cpu.rcu_read_unlock();
        found
    }

    /// The frame that user code of space `number` reads from at `at`, if it needs no fault.
    pub(crate) fn frame_at(&self, cpu: &ThreadCpu, number: u16, at: VirtAddr) -> Option<Frame> {
        self.leaf_at(cpu, number, at).map(|found| found.frame)
    }

    /// A new page of [`CACHED`], filled with this word. The caller has the reference that is meant for the file.
    pub(crate) fn new_file_page(&self, cpu: &ThreadCpu, page: u64, word: u64) -> Frame {
        let head = self.new_file_folio(cpu, 0, FolioMapping { file: CACHED, page });
        for cell in self.data.words(head).expect("it holds data") {
            cell.atomic_store(word, Ordering::Relaxed);
        }
        head
    }

    /// A folio of `1 << order` pages of a file. The caller has the reference that is meant for the file.
    fn new_file_folio(&self, cpu: &ThreadCpu, order: u8, mapping: FolioMapping) -> Frame {
        let head = mm::FrameSource::allocate(self.data, cpu, order).expect("enough frames");
        for index in 0..1 << order {
            let record = MemoryMap::page(self.data, cpu, head.wrapping_add(index)).expect("it has a record");
            let references = u32::from(index == 0);
            let made = Page::new(Membership { head, order }, references, FolioFlags::SHMEM).of_file(mapping);
            // Nobody knows the frame yet. The count comes last.
            let long =
                [(record.mapping_word(), made.mapping_word()), (record.membership_word(), made.membership_word())];
            let short = [(record.flags_word(), made.flags_word()), (record.refcount_word(), made.refcount_word())];
            for (to, from) in long {
                to.atomic_store(from.atomic_load(Ordering::Relaxed), Ordering::SeqCst);
            }
            for (to, from) in short {
                to.atomic_store(from.atomic_load(Ordering::Relaxed), Ordering::SeqCst);
            }
        }
        head
    }

    /// Puts a huge page at the beginning of [`CACHED_HUGE`], and returns its first frame.
    pub(crate) fn fill_huge_file(&self, cpu: &ThreadCpu) -> Frame {
        self.fill_huge_page(cpu, 0)
    }

    /// Puts huge page `number` into [`CACHED_HUGE`], and returns its first frame.
    pub(crate) fn fill_huge_page(&self, cpu: &ThreadCpu, number: u64) -> Frame {
        let file = self.mm.file(CACHED_HUGE).expect("it is there");
        let page = number * file.leaf().frames();
        let head = self.new_file_folio(cpu, 9, FolioMapping { file: CACHED_HUGE, page });
        self.mm.replace_page(cpu, file, page, Some(head)).expect("an empty slot");
        head
    }

    /// Puts a page that is filled with its number into every slot of [`CACHED`].
    pub(crate) fn fill_file(&self, cpu: &ThreadCpu) {
        let file = self.mm.file(CACHED).expect("it is there");
        for page in 0..FILE_PAGES {
            let frame = self.new_file_page(cpu, page, page);
            self.mm.replace_page(cpu, file, page, Some(frame)).expect("an empty slot");
        }
    }

    /// Takes all pages out of [`CACHED`].
    pub(crate) fn empty_file(&self, cpu: &ThreadCpu) {
        let file = self.mm.file(CACHED).expect("it is there");
        for page in 0..FILE_PAGES {
            self.mm.replace_page(cpu, file, page, None).expect("a page of the file");
        }
    }

    /// The frame that page `page` of [`CACHED`] is in.
    pub(crate) fn file_frame(&self, page: u64) -> Option<Frame> {
        let word = self.slots[page as usize].word().atomic_load(Ordering::SeqCst);
        (word != 0).then(|| Frame::new(word & !(1 << 63)))
    }

    /// References, pins and mappings of the folio whose first frame this is.
    pub(crate) fn counts(&self, cpu: &ThreadCpu, frame: Frame) -> (u32, u32, u32) {
        let page = MemoryMap::page(self.data, cpu, frame).expect("a frame with a record");
        let read = |word: &machine::Word32| word.atomic_load(Ordering::SeqCst);
        (read(page.refcount_word()), read(page.pincount_word()), read(page.mapcount_word()))
    }

    /// The flags of the frame's record.
    pub(crate) fn flags(&self, cpu: &ThreadCpu, frame: Frame) -> u32 {
        let page = MemoryMap::page(self.data, cpu, frame).expect("a frame with a record");
        page.flags_word().atomic_load(Ordering::SeqCst)
    }

    /// Every frame is back, every table but the roots, and every place on swap; and no frame was ever mapped as it must not be.
    pub(crate) fn assert_all_is_back(&self, tables: u64) {
        assert_eq!(self.checked.take_reports(), [], "frames were mapped as they must not be");
        assert_eq!(self.checked.in_use(), [], "frames are mapped");
        assert_eq!(self.data.leaks(), [], "frames are in use or counted");
        assert_eq!((self.swap.in_use(), self.swap.counts()), (0, 0), "places on swap are in use");
        self.failures.fail_at(0);
        let left = std::iter::from_fn(|| self.tables.arena.allocate().ok()).count() as u64;
        assert_eq!(left, tables - u64::from(SPACES), "every table but the roots is back");
    }
}

/// A private, writable area of anonymous memory.
pub(crate) const fn anonymous(start: VirtAddr, pages: u64, offset: u64) -> Area {
    Area::private(start, pages, AreaRights::ReadWrite, ANONYMOUS, offset)
}
