//! A leaf with a NUMA hint ([`crate::numa`]; Linux: `do_numa_page`).

use pagetable::{Attributes, Flags, Rights};

use crate::fault::Fault;
use crate::frames::FrameSource;
use crate::leaf::{Leaf, Presence};
use crate::mm::Mm;
use crate::numa::NumaPlacement;
use crate::platform::Platform;

/// What a fault does about a hint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hints {
    /// Asks whether the page is to move.
    Ask,
    /// It has asked, or the page must not move: the leaf is used as it is.
    Ignore,
}

impl<P: Platform> Mm<'_, P> {
    /// Whether the leaf has a hint by which its page is to move before it is mapped again. Under its page-table lock.
    pub(super) fn is_misplaced(&self, cpu: &P::Cpu, fault: &Fault, leaf: &Leaf) -> bool {
        fault.hints == Hints::Ask
            && leaf.presence == Presence::ProtNone
            && self.frames().placement(cpu, leaf.frame) == NumaPlacement::Moves
    }
}

impl Fault {
    /// The rights of a leaf that was PROT_NONE with these `attributes`, where the area and the page allow `most`.
    ///
    /// A hint leaves the right to write with who had it, and brings it to nobody: who took it away waits for the next store.
    pub(super) fn rights_again(&self, attributes: Attributes, most: Rights) -> Rights {
        if self.is_write() || attributes.has(Flags::WRITE) { most } else { most.without(Rights::WRITE) }
    }
}
