//! Frames and files, as the init block declares them.

use machine::Frame;
use mm::{FileKind, FolioFlags};
use pagetable::Level;

use super::tables::MOST_TABLES;
use super::{FileSetup, FrameSetup, Owner, Setup};
use crate::arguments::{Arguments, impossible, number, unique};
use crate::error::{Error, Problem};
use crate::race::Race;
use crate::scope::MOST_ENTRIES;
use crate::source::Spanned;
use crate::syntax::{Mode, Value};

/// The greatest frame number of a machine with 52-bit physical addresses.
pub(super) const MOST_FRAME: u64 = (1 << 40) - 1;

/// The highest number of a CPU.
const MOST_CPU: u64 = 63;

/// Words of the language that may follow the values of a frame or a file, and so cannot be names of frames.
pub(super) const WORDS: [&str; 12] = [
    "driver",
    "device",
    "pagemap",
    "spare",
    "anonymous",
    "mixed",
    "pfnmap",
    "file",
    "shmem",
    "secret",
    "zero",
    "movable",
];

/// `A`, and then `A.1`, `A.2` ...
fn copy_name(name: &str, copy: u64) -> String {
    if copy == 0 { name.to_owned() } else { format!("{name}.{copy}") }
}

impl Setup {
    pub(super) fn frame(
        &mut self,
        race: &Race,
        name: &Spanned<String>,
        values: &[Spanned<Value>],
        mut arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        unique(race, "frame", name, self.frames.iter().map(|frame| &frame.name))?;
        let [value] = values else {
            let right = format!("frame {name} = 0x123456;");
            return Err(Error::new(
                &race.source,
                name.span,
                Problem::Missing { what: "the frame's number".into(), right },
            ));
        };
        let first = number(race, value, MOST_FRAME)?;
        let order = arguments.number("order", 0, 18)? as u8;
        let owner = arguments.one_of(
            &[
                ("driver", Owner::Driver),
                ("device", Owner::Device),
                ("pagemap", Owner::Pagemap),
                ("spare", Owner::Spare),
            ],
            Owner::Cache,
        );
        let kinds = [
            ("file", FolioFlags::FILE),
            ("shmem", FolioFlags::SHMEM),
            ("secret", FolioFlags::SECRET),
            ("zero", FolioFlags::ZERO),
            ("movable", FolioFlags::MOVABLE),
        ];
        let flags = arguments.one_of(&kinds, FolioFlags::SHMEM);
        let far_from = match arguments.one("far")? {
            Some(cpu) => Some(arguments.in_range(cpu, MOST_CPU)? as usize),
            None => None,
        };
        let holds = arguments.number("holds", 0, u64::MAX)?;
        let elsewhere = arguments.number("references", 0, u64::from(u32::MAX))? as u32;
        let copies = match arguments.one("copies")? {
            Some(copies) => arguments.between(copies, 1, MOST_ENTRIES)?,
            None => 1,
        };
        arguments.finish()?;
        let frames = 1u64 << order;
        if first % frames != 0 {
            let why = format!("frame {first:#x} cannot start a folio of order {order}");
            return Err(impossible(race, value.span, why, format!("a multiple of {frames:#x}")));
        }
        let end = first + copies * frames;
        if self.frames_of_tables.meets(first, end) {
            let (why, others) = ("page tables lie there".to_owned(), self.frames_of_tables.others);
            let right = format!("frames outside {others:#x} to {:#x}", others + MOST_TABLES - 1);
            return Err(impossible(race, value.span, why, right));
        }
        if let Some(other) = self.frames.iter().find(|other| {
            let start = other.first.number();
            first < start + (1 << other.order) && start < end
        }) {
            return Err(impossible(
                race,
                value.span,
                format!("frame {} lies there", other.name),
                "frames that do not overlap",
            ));
        }
        for copy in 0..copies {
            let first = Frame::new(first + copy * frames);
            let name = copy_name(&name.node, copy);
            self.frames.push(FrameSetup { name, first, order, owner, flags, holds, elsewhere, far_from });
        }
        Ok(())
    }

    pub(super) fn file(
        &mut self,
        race: &Race,
        name: &Spanned<String>,
        values: &[Spanned<Value>],
        mut arguments: Arguments<'_>,
    ) -> Result<(), Error> {
        unique(race, "file", name, self.files.iter().map(|file| &file.name))?;
        let mut pages = Vec::new();
        for value in values {
            match &value.node {
                Value::Name(none) if none == "none" => pages.push((None, value)),
                _ => pages.extend(self.copies(self.frame_named(race, value)?).map(|index| (Some(index), value))),
            }
        }
        let kinds = [
            ("driver", FileKind::Driver),
            ("pfnmap", FileKind::PfnMapped),
            ("mixed", FileKind::Mixed),
            ("anonymous", FileKind::Anonymous),
        ];
        let kind = arguments.one_of(&kinds, FileKind::Cached);
        let levels = [("pte", Level::Pte), ("pmd", Level::Pmd), ("pud", Level::Pud)];
        let leaf = arguments.named("leaf", &levels, Level::Pte)?;
        arguments.finish()?;
        if leaf == Level::Pud && race.litmus.mode.node == Mode::MmPae {
            let why = "PAE has no 1 GiB pages".to_owned();
            return Err(impossible(race, name.span, why, "leaf=pte or leaf=pmd"));
        }
        for (index, value) in &pages {
            let Some(frame) = index.map(|index| &self.frames[index]) else { continue };
            let right_owner = match frame.owner {
                Owner::Cache => kind == FileKind::Cached,
                Owner::Driver | Owner::Device => kind.is_pfn_mapped() || kind == FileKind::Mixed,
                Owner::Pagemap => kind == FileKind::Mixed,
                // An allocator that does not know of a file's reference.
                Owner::Spare => kind == FileKind::Cached && frame.elsewhere > 0,
            };
            if !right_owner {
                let why = format!("frame {} is not of the kind of file {name}", frame.name);
                let right = "frames of drivers and devices in files that are `driver`, others in others";
                return Err(impossible(race, value.span, why, right));
            }
            if 1 << frame.order < leaf.frames() {
                let why = format!("frame {} is smaller than a {leaf} leaf", frame.name);
                return Err(impossible(race, value.span, why, format!("order={}", leaf.frames().ilog2())));
            }
        }
        let pages = pages.into_iter().map(|(index, _)| index).collect();
        self.files.push(FileSetup { name: name.node.clone(), kind, leaf, pages });
        Ok(())
    }

    /// The indices of a frame and its copies.
    fn copies(&self, first: usize) -> impl Iterator<Item = usize> {
        let name = &self.frames[first].name;
        let copies =
            self.frames[first..].iter().zip(0..).take_while(|(frame, copy)| frame.name == copy_name(name, *copy));
        first..first + copies.count()
    }
}
