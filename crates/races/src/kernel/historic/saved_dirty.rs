//! Ways to move dirty out of the hardware's sight that leave a moment in which it is seen, or forget where it is.

use machine::{Cpu, SeqCount, Word64};
use pagetable::{Entry, EntryWrite, Flags, SavesDirty, Whole, Wide, Width};

/// As [`SavesDirty`], but for one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::kernel) enum SavesApart {
    /// An entry that is not dirty when one looks has nothing to save: its right to write goes by a `lock and`. The hardware may set dirty after the look.
    IfSeen,
    /// The right to write goes by a `lock and`, and dirty moves after it: until then the entry is dirty, and not writable.
    Later,
    /// Who looks at an entry asks for the hardware's bit only.
    Unasked,
}

impl SavesApart {
    /// What whoever reads an entry takes it for.
    fn told(self, entry: Entry) -> Entry {
        match self {
            Self::IfSeen | Self::Later => entry,
            Self::Unasked => SavesDirty.as_stored(entry),
        }
    }
}

impl EntryWrite for SavesApart {
    fn clear_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        if flags.bits() & Flags::WRITE.bits() == 0 {
            return self.told(SavesDirty.clear_flags(cpu, cell, sequence, flags));
        }
        match self {
            Self::Unasked => self.told(SavesDirty.clear_flags(cpu, cell, sequence, flags)),
            Self::IfSeen if Wide::load(cpu, cell).has(Flags::DIRTY) => {
                SavesDirty.clear_flags(cpu, cell, sequence, flags)
            }
            Self::IfSeen => self.as_read(Whole.clear_flags(cpu, cell, sequence, flags)),
            Self::Later => {
                let old = Whole.clear_flags(cpu, cell, sequence, flags);
                SavesDirty.update(cpu, cell, sequence, |entry| entry);
                self.as_read(old)
            }
        }
    }

    fn set<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) {
        SavesDirty.set(cpu, cell, sequence, new);
    }

    fn get_and_clear<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount) -> Entry {
        self.told(SavesDirty.get_and_clear(cpu, cell, sequence))
    }

    fn replace<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) -> Entry {
        self.told(SavesDirty.replace(cpu, cell, sequence, new))
    }

    fn update<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, change: impl Fn(Entry) -> Entry) -> Entry {
        self.told(SavesDirty.update(cpu, cell, sequence, change))
    }

    fn set_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        self.told(SavesDirty.set_flags(cpu, cell, sequence, flags))
    }

    fn as_read(&self, entry: Entry) -> Entry {
        self.told(SavesDirty.as_read(entry))
    }

    fn as_stored(&self, entry: Entry) -> Entry {
        SavesDirty.as_stored(entry)
    }
}
