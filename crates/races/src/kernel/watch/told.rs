//! What the glue tells the watch.

use lab::LabCpu;
use machine::Frame;
use mm::Reference;

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
    /// The records of a device's folio are gone, and something else lies where they were.
    RecordsGone { frame: Frame },
    /// The last reference of the folio that starts at this frame is gone.
    Released { frame: Frame },
}

impl Told {
    pub(in crate::kernel) fn tell(self, cpu: &LabCpu) {
        match self {
            Self::GupBegins { pages } => cpu.emit(0, &[pages]),
            Self::LookedUp { frame } => cpu.emit(1, &[frame.number()]),
            Self::Got { page, frame, reference } => {
                cpu.emit(2, &[page as u64, frame.number(), u64::from(reference == Reference::Pin)]);
            }
            Self::GupEnds => cpu.emit(3, &[]),
            Self::GaveBack { frame, pages, reference } => {
                cpu.emit(4, &[frame.number(), pages, u64::from(reference == Reference::Pin)]);
            }
            Self::PutIntoFile { frame } => cpu.emit(6, &[frame.number()]),
            Self::WrittenOut { frame } => cpu.emit(7, &[frame.number()]),
            Self::Released { frame } => cpu.emit(5, &[frame.number()]),
            Self::RecordsGone { frame } => cpu.emit(8, &[frame.number()]),
        }
    }

    pub(super) fn hear(kind: u32, args: &[u64]) -> Option<Self> {
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
            (5, &[frame]) => Self::Released { frame: Frame::new(frame) },
            _ => return None,
        })
    }
}
