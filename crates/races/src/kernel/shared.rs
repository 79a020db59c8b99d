//! What the CPUs share, in the arena: placed before the start, and named for traces.

use lab::{Arena, FrameKind, Pool};
use machine::{CpuId, Frame, ReaderLock, Word, Word32, Word64};
use mm::special::DevicePages;
use mm::table_check::FrameUses;
use mm::{
    AddressSpace, AreaSlot, File, FileId, FolioFlags, FolioMapping, Mapping, Membership, Page, PageSlot, Shootdown,
    SpacePart,
};
use pagetable::{Root, TableMeta};

use super::build::Kernel;
use super::mirror::Mirror;
use super::names::FrameNames;
use super::platform::{Records, SpareFrames, TABLES};
use super::setup::{Contents, FrameSetup, Owner, Setup, TableFrames};
use super::swap_device::PlaceWords;
use super::table_check::TableChecks;
use crate::checker::Checker;

/// Room for objects beside those that are counted.
const SPARE_BYTES: usize = 4096;

/// Everything that the CPUs share, in the arena.
pub(super) struct Shared<'l> {
    pub(super) arena: &'l Arena,
    pub(super) metas: &'l [TableMeta],
    pub(super) aside: &'l Word64,
    pub(super) frames_of_tables: TableFrames,
    pub(super) records: &'l [Records<'l>],
    pub(super) spare: &'l [SpareFrames],
    pub(super) zero_page: Option<Frame>,
    pub(super) swap: &'l [PlaceWords],
    pub(super) files: &'l [File<'l>],
    pub(super) spaces: &'l [AddressSpace<'l>],
    /// For each address space: 0 as long as a fork has not made it.
    pub(super) started: &'l [Word32],
    /// Room for the areas of each part of each address space, and for the rmap of each file.
    slots: &'l [&'l [&'l [AreaSlot]]],
    mappings: &'l [&'l [Mapping]],
    pub(super) shootdown: &'l Shootdown,
    pub(super) mirror: Option<&'l Mirror<'l>>,
    /// How often whoever waits for a fault to be resolved was woken; `None` if no area is registered.
    pub(super) wakes: Option<&'l Word64>,
}

impl Kernel {
    pub(super) fn pools(&self) -> Vec<Pool> {
        let tables = Pool::tables(
            TABLES,
            (0..self.setup.tables).map(|number| self.setup.frames_of_tables.frame(number).number()),
        );
        let owned = self.setup.frames.iter().enumerate().filter(|(_, frame)| frame.owner != Owner::Spare);
        let data =
            owned.map(|(number, frame)| Pool::data(data_pool(number), u32::from(frame.order), [frame.first.number()]));
        let spare = self.spare_orders().into_iter().map(|order| {
            let frames = self.setup.frames.iter().filter(|frame| frame.owner == Owner::Spare && frame.order == order);
            Pool::data(spare_pool(order), u32::from(order), frames.map(|frame| frame.first.number()))
        });
        std::iter::once(tables).chain(data).chain(spare).collect()
    }

    /// The sizes of folios that the engine may allocate.
    fn spare_orders(&self) -> Vec<u8> {
        let spare = self.setup.frames.iter().filter(|frame| frame.owner == Owner::Spare);
        let mut orders: Vec<u8> = spare.map(|frame| frame.order).collect();
        orders.sort_unstable();
        orders.dedup();
        orders
    }

    pub(super) fn object_bytes(&self) -> usize {
        let records: usize = self.setup.frames.iter().map(records_of).sum();
        let contents: usize = self.setup.frames.iter().map(|frame| self.contents_of(frame)).sum();
        let uses: usize = self.setup.frames.iter().map(|frame| self.uses_of(frame)).sum();
        let slots: usize = self.setup.files.iter().map(|file| file.pages.len()).sum();
        let (areas, mappings) = (self.areas_of_space(), self.areas_of_space() * self.setup.spaces.len());
        SPARE_BYTES
            + self.setup.swap as usize * size_of::<PlaceWords>()
            + records * size_of::<Page>()
            + self.setup.frames.len() * size_of::<Records<'_>>()
            + contents * size_of::<Word64>()
            + uses * size_of::<FrameUses>()
            + slots * size_of::<PageSlot>()
            + self.setup.tables as usize * size_of::<TableMeta>()
            + size_of::<Shootdown>()
            + (self.setup.spaces.len() + self.setup.files.len()) * size_of::<&[Mapping]>()
            + self.setup.spaces.len() * size_of::<AddressSpace<'_>>()
            + self.setup.spaces.len() * self.setup.parts.len() * self.bytes_of_part(areas)
            + self.setup.files.len() * (mappings * size_of::<Mapping>() + size_of::<File<'_>>())
    }

    fn bytes_of_part(&self, areas: usize) -> usize {
        size_of::<SpacePart<'_>>()
            + size_of::<&[AreaSlot]>()
            + areas * size_of::<AreaSlot>()
            + (self.setup.reader_locks as usize + 1) * size_of::<ReaderLock>()
    }

    /// Room for areas in each part of an address space: those that the file names may be split, and a child has them, too.
    fn areas_of_space(&self) -> usize {
        2 * self.setup.areas.len() + 2
    }

    /// How many words of contents a folio has.
    fn contents_of(&self, frame: &FrameSetup) -> usize {
        match self.setup.contents {
            Contents::Ignored => 0,
            Contents::Words => 1 << frame.order.min(9),
        }
    }

    /// How many of a folio's frames have counts of their uses.
    fn uses_of(&self, frame: &FrameSetup) -> usize {
        match self.setup.table_checks {
            TableChecks::None => 0,
            TableChecks::Counted => records_of(frame),
        }
    }

    /// Puts everything that CPUs share into the arena.
    pub(super) fn place<'l>(&self, arena: &'l Arena, roots: &[Root]) -> Shared<'l> {
        let setup = &self.setup;
        let metas = arena.alloc_slice(setup.tables as usize, |_| TableMeta::new());
        let records = arena.alloc_slice(setup.frames.len(), |number| {
            let frame = &setup.frames[number];
            let membership = Membership { head: frame.first, order: frame.order };
            // One reference is the file's, the driver's, or that of whoever is going to put the frame into a file.
            let references = |index| u32::from(index == 0 && frame.owner != Owner::Spare);
            let pages = arena.alloc_slice(records_of(frame), |index| {
                let page = Page::new(membership, references(index), frame.flags);
                match setup.home_of(number) {
                    Some((file, home)) if index == 0 => {
                        page.of_file(FolioMapping { file: FileId::new(file as u16), page: home })
                    }
                    _ => page,
                }
            });
            let uses = arena.alloc_slice(self.uses_of(frame), |_| FrameUses::new());
            let contents = arena.alloc_slice(self.contents_of(frame), |_| Word64::new(frame.holds));
            let device = (frame.owner == Owner::Pagemap).then(|| DevicePages::new(frame.first, pages));
            Records { first: frame.first, pages, uses, contents, device, owner: frame.owner, far_from: frame.far_from }
        });
        let orders = self.spare_orders();
        let spare = arena
            .alloc_slice(orders.len(), |index| SpareFrames { order: orders[index], pool: spare_pool(orders[index]) });
        let zero_page =
            setup.frames.iter().find(|frame| frame.flags.contains(FolioFlags::ZERO)).map(|frame| frame.first);
        let mappings = arena.alloc_slice(setup.files.len(), |_| {
            arena.alloc_slice(self.areas_of_space() * setup.spaces.len(), |_| Mapping::new())
        });
        let files = arena.alloc_slice(setup.files.len(), |number| {
            let file = &setup.files[number];
            let pages = arena.alloc_slice(file.pages.len(), |page| {
                PageSlot::new(file.pages[page].map(|index| setup.frames[index].first))
            });
            File::new(file.kind, file.leaf, pages, mappings[number])
        });
        let slots_of_part = |_| arena.alloc_slice(self.areas_of_space(), |_| AreaSlot::new());
        let slots = arena.alloc_slice(roots.len(), |_| arena.alloc_slice(setup.parts.len(), slots_of_part));
        let reader_locks = |_| arena.alloc_slice(setup.reader_locks as usize, |_| ReaderLock::new());
        let spaces = arena.alloc_slice(roots.len(), |space| {
            let part =
                |part| SpacePart::new(setup.parts[part], slots[space][part]).with_reader_locks(reader_locks(part));
            let parts = arena.alloc_slice(setup.parts.len(), part);
            AddressSpace::in_parts(roots[space], parts).expect("checked when the file was read")
        });
        let started = arena.alloc_slice(roots.len(), |_| Word32::new(0));
        Shared {
            arena,
            metas,
            aside: arena.alloc(Word64::new(0)),
            frames_of_tables: setup.frames_of_tables,
            records,
            spare,
            zero_page,
            swap: arena.alloc_slice(setup.swap as usize, |_| PlaceWords::new()),
            files,
            spaces,
            started,
            slots,
            mappings,
            shootdown: arena.alloc(Shootdown::new()),
            mirror: Mirror::place(arena, &self.columns),
            wakes: setup.hands_over_faults().then(|| arena.alloc(Word64::new(0))),
        }
    }
}

/// The pool that holds just the data frame with this number.
pub(super) fn data_pool(number: usize) -> FrameKind {
    FrameKind(number as u8 + 1)
}

/// The pool of the folios of this order that the engine may allocate.
fn spare_pool(order: u8) -> FrameKind {
    FrameKind(u8::MAX - order)
}

/// How many records a folio has. One of a gigabyte has those of its first 2 MiB only: they are all that tests reach.
fn records_of(frame: &FrameSetup) -> usize {
    match frame.owner {
        Owner::Device => 1,
        _ => 1 << frame.order.min(9),
    }
}

impl<'l> Shared<'l> {
    pub(super) fn name_objects<K: Checker<'l>>(
        &self,
        checker: &mut K,
        (setup, cpus): (&Setup, usize),
        frames: &FrameNames,
    ) {
        for (frame, records) in setup.frames.iter().zip(self.records) {
            for (index, word) in records.contents.iter().enumerate() {
                let name = if index == 0 { frame.name.clone() } else { format!("{}+{index:#x}", frame.name) };
                checker.name(word, format!("contents of {name}"));
            }
            if let Some(uses) = records.uses.first() {
                let [anonymous, file] = uses.words();
                checker.name(anonymous, format!("anonymous uses of {}", frame.name));
                checker.name(file, format!("file uses of {}", frame.name));
            }
            if frame.owner == Owner::Device {
                continue;
            }
            let page = &records.pages[0];
            let name = &frame.name;
            checker.name(page.refcount_word(), format!("refcount of {name}"));
            checker.name(page.pincount_word(), format!("pincount of {name}"));
            checker.name(page.mapcount_word(), format!("mapcount of {name}"));
            checker.name(page.flags_word(), format!("flags of {name}"));
            checker.name(page.membership_word(), format!("folio of {name}"));
            checker.name(page.mapping_word(), format!("file of {name}"));
            if let Some(device) = &records.device {
                checker.name(device.state_word(), format!("records of {name}"));
            }
        }
        for (file, words) in setup.files.iter().zip(self.files) {
            let name = &file.name;
            checker.name(words.rmap_lock().word(), format!("rmap lock of {name}"));
            checker.name(words.driver_lock().word(), format!("driver lock of {name}"));
            for (index, slot) in words.slots().iter().enumerate() {
                let frames = frames.clone();
                let show = move |bits: u64| match bits {
                    0 => "none".to_owned(),
                    bits => frames.show(machine::Frame::new(bits & !(1 << 63))),
                };
                checker.name_range(slot.word().address(), 8, format!("{name}[{index}]"), Some(Box::new(show)));
            }
        }
        for (file, mappings) in setup.files.iter().zip(self.mappings) {
            let at = mappings.as_ptr().addr();
            checker.name_range(at, size_of_val(*mappings), format!("rmap of {}", file.name), None);
        }
        let of_space = self.spaces.iter().zip(&setup.spaces).zip(self.slots.iter().zip(self.started));
        for ((words, space), (slots, started)) in of_space {
            let of = if setup.spaces.len() == 1 { String::new() } else { format!(" of {}", space.name) };
            for (part, slots) in words.parts().iter().zip(*slots) {
                let of = if words.parts().len() == 1 { of.clone() } else { format!("{of} from {} on", part.start()) };
                let mut locks = part.mmap_lock().words();
                let writers = locks.next();
                writers.into_iter().for_each(|word| checker.name(word, format!("mmap lock{of}")));
                (0..).zip(locks).for_each(|(cpu, word)| checker.name(word, format!("mmap lock{of} of CPU {cpu}")));
                checker.name(part.gathers_word(), format!("gathers{of}"));
                checker.name(part.count_word(), format!("number of areas{of}"));
                checker.name_range(slots.as_ptr().addr(), size_of_val(*slots), format!("areas{of}"), None);
            }
            checker.name(words.active_word(), format!("active CPUs{of}"));
            checker.name(words.write_protect().word(), format!("fork sequence{of}"));
            checker.name(words.has_pinned_word(), format!("has pinned{of}"));
            checker.name(words.merged_zeros_word(), format!("merged zeros{of}"));
            checker.name(started, format!("start{of}"));
            checker.name(words.unflushed().word(), format!("unflushed{of}"));
        }
        for (number, place) in self.swap.iter().enumerate() {
            checker.name(&place.counts, format!("counts of swap place {number}"));
            checker.name(&place.word, format!("contents of swap place {number}"));
        }
        checker.name(self.aside, "table put aside");
        if let Some(wakes) = self.wakes {
            checker.name(wakes, "wakes of userfaultfds");
        }
        if let Some(mirror) = self.mirror {
            checker.name(mirror.lock.word(), "lock of the mirror");
            checker.name(mirror.invalidations.word(), "invalidations");
            for page in mirror.pages {
                checker.name(&page.entry, format!("mirror of {}", setup.page_name(page.space, page.address)));
            }
        }
        for cpu in 0..cpus {
            let id = CpuId::new(cpu as u32);
            checker.name(self.shootdown.request_word(id), format!("request of CPU{cpu}"));
            checker.name(self.shootdown.pending_word(id), format!("pending of CPU{cpu}'s request"));
            checker.name(self.shootdown.asked_by_word(id), format!("who asks CPU{cpu}"));
            let lazy = self.shootdown.lazy(id);
            let show = |bits: u64| if bits == 0 { "no" } else { "yes" }.to_owned();
            checker.name_range(lazy.lazy_word().address(), 8, format!("CPU{cpu} is lazy"), Some(Box::new(show)));
            checker.name(lazy.generation_word(), format!("generation of CPU{cpu}"));
        }
    }
}
