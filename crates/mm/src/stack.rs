//! Stacks: areas that grow down when user code accesses what lies below them, and the gap that keeps others away from them (Linux: VM_GROWSDOWN, `stack_guard_gap`).
//!
//! | who | and a stack |
//! |---|---|
//! | a fault of user code below it | makes it larger, if nothing else is nearer than the gap, and it stays in its limit |
//! | mmap, mremap of what can be accessed | is refused in the gap: a stack that was grown page by page would run into it. (Linux lets in what is to lie at a fixed address.) |
//! | mmap, mremap of what cannot be accessed (PROT_NONE) | is let in: a guard that somebody wants; the stack ends there |
//! | GUP, [`Mm::populate`], [`Mm::mirror`] | does not make it larger: what lies below it is no area (Linux since 6.5) |
//! | [`Mm::mprotect`] | does not look at gaps; the stack then grows no nearer |
//!
//! What a stack is cut into are stacks.
//!
//! # Protocol
//!
//! A fault finds under the mmap lock, held for reading, that no area holds the address, and that the next one above it is a stack. It drops the lock, takes it for
//! writing, of all of the gap, and *looks again*: meanwhile somebody may have mapped something there, or cut the stack. Only then the area becomes larger, in its file's rmap and in
//! the address space, and the fault is tried again. (Linux grew stacks under the lock for reading until 6.5: 8d7071af8907, CVE-2023-3269, "StackRot".)

use core::fmt;

use machine::addr::{PAGE_SIZE, VirtAddr};
use pagetable::Level;

use crate::area::{Area, AreaRights, Growth, Sharing};
use crate::error::FaultError;
use crate::file::{File, FileKind, MappedAt};
use crate::guard::Guards;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::{AddressRange, AddressSpace, SpaceId};

/// How far stacks of an address space may grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StackLimits {
    /// How many pages below a stack stay free.
    pub gap: u64,
    /// How many pages a stack that grew may have (Linux: RLIMIT_STACK).
    pub pages: u64,
}

impl StackLimits {
    /// What Linux begins with: a gap of 1 MiB, stacks of 8 MiB.
    pub const DEFAULT: Self = Self { gap: 256, pages: 2048 };

    /// The size of the gap in bytes.
    const fn gap_bytes(self) -> u64 {
        self.gap.saturating_mul(PAGE_SIZE)
    }
}

impl AddressSpace<'_> {
    /// Whatever decides whether a stack can reach down to this address: the address, and the gap below it. The stack itself is looked for in the same part of the address space: it does not grow
    /// out of that.
    pub(crate) fn stack_gap_below(&self, address: VirtAddr) -> AddressRange {
        let start = address.align_down(PAGE_SIZE).as_u64();
        (VirtAddr::new(start.saturating_sub(self.stack_limits().gap_bytes())), address)
    }

    /// A range, and where a stack would be in whose gap it lies.
    pub(crate) fn stack_gap_above(&self, (start, end): AddressRange) -> AddressRange {
        (start, VirtAddr::new(end.as_u64().saturating_add(self.stack_limits().gap_bytes())))
    }
}

/// Why a stack did not grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrowthError {
    /// It would be larger than its limit.
    Limit {
        /// How many pages it may have.
        pages: u64,
    },
    /// It would come nearer to this area than the gap.
    Gap(Area),
    /// Its pages have no names left below the first: its offset in the anonymous file is too small.
    Offset {
        /// The offset.
        offset: u64,
    },
}

/// A stack, and what it becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grown {
    stack: Area,
    grown: Area,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Makes the stack above `address` reach down to it, if there is one still and it may. On success the fault is to be tried again. `seen` is what
    /// [`Self::stack_above`] said with the mmap lock held for reading; the caller has dropped it since.
    ///
    /// # Errors
    /// Why the address stays without an area.
    #[cold]
    pub(crate) fn grow_stack(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        seen: Grown,
    ) -> Result<(), FaultError> {
        let near = space.stack_gap_below(address);
        let mmap = space.mmap_write(cpu, near);
        let result = match space.find(cpu, address) {
            // Somebody else was faster.
            Some(_) => Ok(()),
            None => {
                let look_again = || self.stack_above(cpu, space, address, near);
                let grown = self.protocols().guards.growth_under_lock(Ok(seen), look_again);
                grown.and_then(|grown| self.grow(cpu, space, address, &grown))
            }
        };
        mmap.unlock();
        result
    }

    /// The stack above `address`, which no area holds, and what it would become. The caller holds the mmap lock of `held`: what reaches into the gap and lies outside is seen only if that is all of
    /// [`AddressSpace::stack_gap_below`].
    ///
    /// # Errors
    /// There is no stack, or it must not grow so far.
    pub(crate) fn stack_above(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        held: AddressRange,
    ) -> Result<Grown, FaultError> {
        let start = address.align_down(PAGE_SIZE);
        let (below, above) = space.neighbours(cpu, address, held);
        let stack = above.filter(|area| area.growth == Growth::Down).ok_or(FaultError::NoArea { address })?;
        let more = (stack.start.as_u64() - start.as_u64()) / PAGE_SIZE;
        let StackLimits { gap, pages } = space.stack_limits();
        // Two pieces of one stack, and a guard that nobody can access, may be as near as they are.
        let is_neighbour = |area: &Area| area.growth == Growth::Never && area.rights != AreaRights::None;
        let not_grown = |error| FaultError::NotGrown { address, error };
        if stack.pages + more > pages {
            Err(not_grown(GrowthError::Limit { pages }))
        } else if let Some(area) = below.filter(is_neighbour)
            && (start.as_u64() - area.end().as_u64()) / PAGE_SIZE < gap
        {
            Err(not_grown(GrowthError::Gap(area)))
        } else if let Some(offset) = stack.offset.checked_sub(more) {
            Ok(Grown { stack, grown: Area { start, pages: stack.pages + more, offset, ..stack } })
        } else {
            Err(not_grown(GrowthError::Offset { offset: stack.offset }))
        }
    }

    /// Puts the grown area in the place of the stack. The caller holds the mmap lock for writing.
    fn grow(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        &Grown { stack, grown }: &Grown,
    ) -> Result<(), FaultError> {
        let no_area = FaultError::NoArea { address };
        let id = self.spaces().iter().position(|own| own.is(space));
        let id = SpaceId::new(id.ok_or(no_area)? as u16);
        let (index, _) = space.first_in(cpu, stack.start, stack.end()).ok_or(no_area)?;
        let file = self.file(stack.file).ok_or(no_area)?;
        let rmap = file.rmap_lock().write(cpu);
        file.relink(cpu, &MappedAt::new(id, &stack), [MappedAt::new(id, &grown)]);
        rmap.unlock();
        space.splice(cpu, index, 1, &[grown]);
        Ok(())
    }

    /// The stack into whose gap an area would reach that is to lie in `start..end`, where there is none. The caller holds the mmap lock of
    /// [`AddressSpace::stack_gap_above`].
    pub(crate) fn stack_with_gap_in(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        rights: AreaRights,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Option<Area> {
        let (_, above) = space.neighbours(cpu, start, space.stack_gap_above((start, end)));
        let gap = space.stack_limits().gap;
        let is_near = |stack: &Area| (stack.start.as_u64() - end.as_u64()) / PAGE_SIZE < gap;
        above.filter(|area| rights != AreaRights::None && area.growth == Growth::Down && is_near(area))
    }
}

/// Whether an area may grow: only memory that is nobody else's, and can be had page by page.
pub(crate) fn may_grow(area: &Area, file: &File<'_>) -> bool {
    file.kind() == FileKind::Anonymous && file.leaf() == Level::Pte && area.sharing == Sharing::Private
}

impl fmt::Display for GrowthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { pages } => write!(f, "a stack may have {pages} pages"),
            Self::Gap(area) => write!(f, "it would come too near to the area that ends at {}", area.end()),
            Self::Offset { offset } => write!(f, "only {offset} pages lie before it in its file"),
        }
    }
}
