//! What entries remember of write protection.

use machine::addr::VirtAddr;
use pagetable::{
    Attributes, Entry, Flags, Level, Marker, Migration, MigrationAccess, Mode, NonPresent, Swap, SwapFlags,
};

use crate::file::FileKind;
use crate::leaf::{Held, Leaf};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::zap::ZapOf;

impl<P: Platform> Mm<'_, P> {
    /// The flag of leaves that are protected; `None` if the paging mode has no bit for it.
    #[inline(always)]
    pub(crate) fn uffd_wp(&self) -> Option<Flags> {
        self.protocols().mode.uffd_wp()
    }

    /// Whether a leaf with these attributes is protected: then nobody may be given the right to write to it.
    #[inline]
    pub(crate) fn is_uffd_wp_leaf(&self, attributes: Attributes) -> bool {
        self.uffd_wp().is_some_and(|mark| attributes.has(mark))
    }

    /// These attributes for a page whose entry had `before`: protected, if that was.
    #[inline]
    pub(crate) fn keep_uffd_wp(&self, attributes: Attributes, before: Attributes) -> Attributes {
        match self.uffd_wp() {
            Some(mark) if before.has(mark) => attributes.without(Flags::WRITE).with(mark),
            _ => attributes,
        }
    }

    /// The attributes of a page that comes back from where these flags were kept.
    #[inline]
    pub(crate) fn bring_back_uffd_wp(&self, attributes: Attributes, flags: SwapFlags) -> Attributes {
        match self.uffd_wp() {
            Some(mark) if flags.has(SwapFlags::UFFD_WP) => attributes.without(Flags::WRITE).with(mark),
            _ => attributes,
        }
    }

    /// Whether what an entry holds is protected.
    #[inline]
    pub(crate) fn is_uffd_wp(&self, held: Held) -> bool {
        match held {
            Held::Page(leaf) | Held::Zero(leaf) | Held::Special(leaf) => self.is_uffd_wp_leaf(leaf.attributes),
            Held::Swap(Swap { flags, .. }) | Held::Migration(Migration { flags, .. }) => flags.has(SwapFlags::UFFD_WP),
            Held::Marker(Marker::UffdWriteProtect) => true,
            Held::Nothing | Held::Table | Held::Marker(Marker::Guard | Marker::Poisoned) | Held::Unknown => false,
        }
    }

    /// The entry that protects what this one holds. It is written in the place of an entry that is like this, but perhaps for accessed and dirty.
    pub(crate) fn uffd_protected(&self, level: Level, entry: Entry) -> Entry {
        let Some(mark) = self.uffd_wp() else { return entry };
        match self.held(level, entry) {
            Held::Page(leaf) | Held::Zero(leaf) => {
                let attributes = leaf.attributes.without(Flags::WRITE).with(mark);
                Leaf { attributes, ..leaf }.entry(level).unwrap_or(entry)
            }
            Held::Swap(swap) => {
                NonPresent::Swap(Swap { flags: swap.flags.and(SwapFlags::UFFD_WP), ..swap }).encode(level)
            }
            Held::Migration(away) => {
                // What could be written was this space's alone, or a file's, which nobody needs to know of.
                let access = match away.access {
                    MigrationAccess::Write => MigrationAccess::ReadExclusive,
                    access => access,
                };
                let flags = away.flags.and(SwapFlags::UFFD_WP);
                NonPresent::Migration(Migration { access, flags, ..away }).encode(level)
            }
            Held::Special(_) | Held::Nothing | Held::Table | Held::Marker(_) | Held::Unknown => entry,
        }
    }

    /// The entry without protection. It gives no right to write: who may have that, a fault decides.
    pub(crate) fn uffd_unprotected(&self, level: Level, entry: Entry) -> Entry {
        let held = self.held(level, entry);
        match (held, self.uffd_wp()) {
            _ if !self.is_uffd_wp(held) => entry,
            (Held::Page(leaf) | Held::Zero(leaf) | Held::Special(leaf), Some(mark)) => {
                let attributes = leaf.attributes.without(mark);
                Leaf { attributes, ..leaf }.entry(level).unwrap_or(entry)
            }
            (Held::Swap(swap), _) => {
                NonPresent::Swap(Swap { flags: swap.flags.without(SwapFlags::UFFD_WP), ..swap }).encode(level)
            }
            (Held::Migration(away), _) => {
                let flags = away.flags.without(SwapFlags::UFFD_WP);
                NonPresent::Migration(Migration { flags, ..away }).encode(level)
            }
            (Held::Marker(Marker::UffdWriteProtect), _) => Entry::NONE,
            _ => entry,
        }
    }

    /// Whether a zap leaves a marker where it takes this entry away: the page comes back by a fault, and is to be protected then (Linux: `zap_install_uffd_wp_if_needed`).
    ///
    /// Anonymous memory comes back as zeros, which nobody has protected. The page-table lock is held; for [`ZapOf::Contents`] the mmap lock, too.
    pub(crate) fn leaves_uffd_marker(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'_>,
        at: VirtAddr,
        (held, what): (Held, ZapOf),
    ) -> bool {
        self.is_uffd_wp(held)
            && match what {
                ZapOf::Everything => false,
                ZapOf::FilePages => true,
                ZapOf::Contents => space
                    .find(cpu, at)
                    .and_then(|area| self.file(area.file))
                    .is_some_and(|file| file.kind() != FileKind::Anonymous),
            }
    }

    /// The entry that [such a zap](Self::leaves_uffd_marker) leaves.
    pub(crate) const fn uffd_marker() -> Entry {
        NonPresent::Marker(Marker::UffdWriteProtect).encode(Level::Pte)
    }
}
