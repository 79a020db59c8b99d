//! Leaves become migration entries, and leaves again (Linux: `try_to_migrate`, `remove_migration_ptes`).

use machine::addr::Frame;
use pagetable::software::{self, Mark};
use pagetable::{Attributes, Entry, Flags, Level, Migration, MigrationAccess, NonPresent, ProtNone, Rights, SwapFlags};

use crate::batched_flush::FlushBatch;
use crate::error::{ReclaimError, ZapError};
use crate::exclusive::{Exclusivity, MaybePinned, make_exclusive, try_share_anon_rmap};
use crate::folio::{Folio, FolioFlags, FolioMapping, Membership, Reference};
use crate::guard::Guards;
use crate::leaf::{Held, Leaf, Presence};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::rmap::{At, Intent, Step, contains};

/// The same bit in every mode.
pub(crate) const SOFT_DIRTY: Mark = software::LONG_MODE.mark(software::SOFT_DIRTY);

/// What a folio is mapped as, while its entries are away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unmapped {
    pub(super) mapping: FolioMapping,
    /// How many migration entries were made. Zap may have taken some since.
    pub(super) entries: u32,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Puts a migration entry in the place of every leaf that maps the folio. Their references and mappings are taken off; the flush is owed.
    ///
    /// Context: interrupts on; the folio is locked, and the caller has a reference; no rmap lock, no page-table lock.
    ///
    /// # Errors
    /// The folio may be pinned, or a table is malformed. All leaves are as they were.
    pub(super) fn unmap_for_migration(
        &self,
        cpu: &P::Cpu,
        folio: &Folio<'m>,
        mapping: FolioMapping,
        owed: &mut FlushBatch,
    ) -> Result<Unmapped, ReclaimError> {
        let mut entries = 0;
        let mut pinned = Ok(());
        let walked = self.for_each_mapping(cpu, mapping, folio.membership(), Intent::Take, |mut at, leaf| {
            pinned = self.leaf_to_migration(cpu, folio, &mut at, &leaf);
            match pinned {
                Ok(()) => {
                    // A leaf that the hardware was kept from before has no translations, unless that is not flushed yet.
                    if leaf.presence == Presence::Present
                        || self.protocols().guards.prot_none_may_be_cached(cpu, at.space, at.address)
                    {
                        owed.add(cpu, at.space);
                    }
                    entries += 1;
                    Step::Continue(())
                }
                Err(MaybePinned) => Step::Break(()),
            }
        });
        let unmapped = Unmapped { mapping, entries };
        match (pinned, walked) {
            (Ok(()), Ok(())) => Ok(unmapped),
            (Err(MaybePinned), _) => {
                self.remap(cpu, folio.membership(), folio, &unmapped);
                Err(ReclaimError::Pinned)
            }
            (Ok(()), Err(error)) => {
                self.remap(cpu, folio.membership(), folio, &unmapped);
                Err(ReclaimError::Table(error))
            }
        }
    }

    /// One leaf becomes a migration entry. Under the page-table lock; the flush is the caller's.
    ///
    /// # Errors
    /// The page is exclusive and may be pinned; the leaf is as it was.
    pub(super) fn leaf_to_migration(
        &self,
        cpu: &P::Cpu,
        folio: &Folio<'m>,
        at: &mut At<'_, 'm, '_, P>,
        leaf: &Leaf,
    ) -> Result<(), MaybePinned> {
        let write = &self.protocols().write;
        let cleared = at.table.get_and_clear(write, at.address);
        let exclusivity = match try_share_anon_rmap(self.map(), cpu, &self.protocols().guards, folio, leaf.frame) {
            Ok(exclusivity) => exclusivity,
            Err(MaybePinned) => {
                at.table.fill(write, at.address, cleared);
                return Err(MaybePinned);
            }
        };
        // Accessed and dirty as they were when the entry was cleared.
        let attributes = match self.held(at.level, cleared) {
            Held::Page(cleared) => cleared.attributes,
            _ => leaf.attributes,
        };
        let mut away = away(folio.flags(cpu), leaf, attributes, exclusivity);
        if self.is_uffd_wp_leaf(attributes) {
            away.flags = away.flags.and(SwapFlags::UFFD_WP);
        }
        at.table.fill(write, at.address, NonPresent::Migration(away).encode(at.level));
        if attributes.has(Flags::ACCESSED) {
            folio.mark(cpu, FolioFlags::REFERENCED);
        }
        if attributes.has(Flags::DIRTY) {
            folio.mark(cpu, FolioFlags::DIRTY);
        }
        // Who cleans the folio holds its lock, so it need not stay on the rmap until the flush (as in `crate::gather`).
        folio.remove_rmap(cpu, 1);
        // The caller has a reference besides, so that this is not the last.
        let _ = folio.put(cpu, self.map(), 1, Reference::Get);
        Ok(())
    }

    /// Makes every migration entry of the folio `from` a leaf that maps the same page of `to`: with the rights, the exclusivity, and the accessed and
    /// dirty bits that it had.
    ///
    /// Context: as for [`Self::unmap_for_migration`], of which this is the way back and the way on. The caller has a reference to `to`, whose count
    /// is not frozen.
    pub(super) fn remap(&self, cpu: &P::Cpu, from: Membership, to: &Folio<'m>, unmapped: &Unmapped) {
        let anonymous = to.flags(cpu).contains(FolioFlags::ANON);
        let walked = self.for_each_place(cpu, unmapped.mapping, from.order, Intent::LookOrGive, |at| {
            if let Held::Migration(away) = at.held
                && contains(from, away.from)
            {
                let frame = to.membership().head.wrapping_add(away.from.number() - from.head.number());
                to.get_held(cpu);
                to.add_rmap(cpu);
                if anonymous && away.access != MigrationAccess::Read {
                    make_exclusive(self.map(), cpu, frame);
                }
                let leaf = self.back(at.level, frame, &away);
                at.table.replace(&self.protocols().write, at.address, leaf);
            }
            Step::Continue(())
        });
        // What lies behind a malformed table was not reached on the way there either.
        let _: Result<(), ZapError> = walked;
    }

    /// The leaf again, of another frame.
    pub(super) fn back(&self, level: Level, frame: Frame, away: &Migration) -> Entry {
        let rights = match away.access {
            MigrationAccess::Write => Rights::USER.and(Rights::WRITE),
            MigrationAccess::Read | MigrationAccess::ReadExclusive => Rights::USER,
        };
        let mut attributes = Attributes::new(rights).with_protection_key(away.key);
        if away.flags.has(SwapFlags::YOUNG) {
            attributes = attributes.with(Flags::ACCESSED);
        }
        if away.flags.has(SwapFlags::DIRTY) {
            attributes = attributes.with(Flags::DIRTY);
        }
        if away.flags.has(SwapFlags::SOFT_DIRTY) {
            attributes = attributes.with_mark(SOFT_DIRTY);
        }
        let attributes = self.bring_back_uffd_wp(attributes, away.flags);
        if away.flags.has(SwapFlags::PROT_NONE) {
            return NonPresent::ProtNone(ProtNone { frame, attributes }).encode(level);
        }
        // The frame is aligned like the one that the entry had: folios are aligned to their size.
        Entry::leaf(level, frame, attributes).unwrap_or(Entry::NONE)
    }
}

/// What is remembered of a leaf.
fn away(folio: FolioFlags, leaf: &Leaf, attributes: Attributes, exclusivity: Exclusivity) -> Migration {
    let writable = attributes.has(Flags::WRITE);
    let access = match exclusivity {
        _ if writable => MigrationAccess::Write,
        Exclusivity::Exclusive => MigrationAccess::ReadExclusive,
        Exclusivity::Shared => MigrationAccess::Read,
    };
    debug_assert!(!writable || exclusivity == Exclusivity::Exclusive || !folio.contains(FolioFlags::ANON));
    let flags = [
        (attributes.has(Flags::ACCESSED), SwapFlags::YOUNG),
        (attributes.has(Flags::DIRTY), SwapFlags::DIRTY),
        (attributes.is_marked(SOFT_DIRTY), SwapFlags::SOFT_DIRTY),
        (leaf.presence == Presence::ProtNone, SwapFlags::PROT_NONE),
    ];
    let flags = flags.into_iter().filter(|(set, _)| *set).fold(SwapFlags::default(), |all, (_, flag)| all.and(flag));
    Migration { from: leaf.frame, access, key: attributes.protection_key(), flags }
}
