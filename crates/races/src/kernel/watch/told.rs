//! What the glue tells the watch.

use machine::Frame;
use mm::Reference;

use crate::checker::CheckedCpu;

/// Set in the kind of what an NMI handler tells.
const FROM_NMI: u32 = 1 << 8;

/// Who calls: the program of a CPU, or its NMI handler, which may come in the middle of what the program does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    Program,
    NmiHandler,
}

/// What the glue tells the watch.
#[derive(Clone, Copy)]
pub(in crate::kernel) enum Told {
    /// A GUP of these pages begins on this CPU. (The set is a bit mask over the watched pages.)
    GupBegins { pages: u64 },
    /// Its lockless path looked up the record of a frame.
    LookedUp { frame: Frame },
    /// It got a reference to a frame, for the watched page with this number.
    Got { page: usize, frame: Frame, reference: Reference },
    /// It ended.
    GupEnds,
    /// References were given back.
    GaveBack { frame: Frame, pages: u64, reference: Reference },
    /// A frame was put into a file, with the reference that was kept for that.
    PutIntoFile { frame: Frame },
    /// The contents of the folio that starts at this frame are being written out: what is in it now is safe.
    WrittenOut { frame: Frame },
    /// A device without a reference has written to a frame.
    DeviceWrote { frame: Frame },
    /// The records of a device's folio are gone, and something else lies where they were.
    RecordsGone { frame: Frame },
    /// The frame's memory has failed, and it was taken out of use.
    OutOfUse { frame: Frame },
    /// page_table_check says that the frame is used in two ways.
    DoubleUse { frame: Frame },
    /// The last reference of the folio that starts at this frame is gone.
    Released { frame: Frame },
}

impl Told {
    pub(in crate::kernel) fn tell<C: CheckedCpu>(self, cpu: &C) {
        let from = if cpu.in_nmi() { FROM_NMI } else { 0 };
        let emit = |kind, args: &[u64]| cpu.emit(from | kind, args);
        match self {
            Self::GupBegins { pages } => emit(0, &[pages]),
            Self::LookedUp { frame } => emit(1, &[frame.number()]),
            Self::Got { page, frame, reference } => {
                emit(2, &[page as u64, frame.number(), u64::from(reference == Reference::Pin)]);
            }
            Self::GupEnds => emit(3, &[]),
            Self::GaveBack { frame, pages, reference } => {
                emit(4, &[frame.number(), pages, u64::from(reference == Reference::Pin)]);
            }
            Self::PutIntoFile { frame } => emit(6, &[frame.number()]),
            Self::WrittenOut { frame } => emit(7, &[frame.number()]),
            Self::Released { frame } => emit(5, &[frame.number()]),
            Self::RecordsGone { frame } => emit(8, &[frame.number()]),
            Self::DeviceWrote { frame } => emit(9, &[frame.number()]),
            Self::OutOfUse { frame } => emit(10, &[frame.number()]),
            Self::DoubleUse { frame } => emit(11, &[frame.number()]),
        }
    }

    pub(super) fn hear(kind: u32, args: &[u64]) -> Option<(Caller, Self)> {
        let caller = if kind & FROM_NMI == 0 { Caller::Program } else { Caller::NmiHandler };
        Self::decode(kind & !FROM_NMI, args).map(|told| (caller, told))
    }

    fn decode(kind: u32, args: &[u64]) -> Option<Self> {
        let reference = |pin: u64| if pin == 0 { Reference::Get } else { Reference::Pin };
        Some(match (kind, args) {
            (0, &[pages]) => Self::GupBegins { pages },
            (1, &[frame]) => Self::LookedUp { frame: Frame::new(frame) },
            (2, &[page, frame, pin]) => {
                Self::Got { page: page as usize, frame: Frame::new(frame), reference: reference(pin) }
            }
            (3, &[]) => Self::GupEnds,
            (4, &[frame, pages, pin]) => Self::GaveBack { frame: Frame::new(frame), pages, reference: reference(pin) },
            (6, &[frame]) => Self::PutIntoFile { frame: Frame::new(frame) },
            (7, &[frame]) => Self::WrittenOut { frame: Frame::new(frame) },
            (8, &[frame]) => Self::RecordsGone { frame: Frame::new(frame) },
            (9, &[frame]) => Self::DeviceWrote { frame: Frame::new(frame) },
            (10, &[frame]) => Self::OutOfUse { frame: Frame::new(frame) },
            (11, &[frame]) => Self::DoubleUse { frame: Frame::new(frame) },
            (5, &[frame]) => Self::Released { frame: Frame::new(frame) },
            _ => return None,
        })
    }
}
