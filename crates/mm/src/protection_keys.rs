//! Protection keys: whom the key of an area keeps out, and which keys an address space has given out (Linux: `arch_vma_access_permitted`, `pkey_alloc`).
//!
//! | who accesses | what decides | if the key forbids it |
//! |---|---|---|
//! | user code | the key in the TLB, and the thread's PKRU | a page fault, which is [`FaultError::KeyForbids`] (SEGV_PKUERR) whatever the areas say by then |
//! | fast GUP | the key in the entry, and the calling thread's PKRU | the slow path |
//! | faults, slow GUP, [`Mm::populate`] | the key of the area, and the calling thread's PKRU | [`FaultError::KeyForbids`], with FOLL_FORCE as well |
//! | [`Mm::gup_remote`], [`Mm::dump`], [`Mm::mirror`] | nothing | |
//!
//! A thread restrains *itself* by PKRU. Who acts for somebody else (a debugger, a core dump, a device) runs with a register that says nothing about the address space (Linux 1b2ee1266ea6).
//!
//! Every entry with a page has the key of its area whenever the mmap lock is free: faults write it, [`Mm::pkey_mprotect`] changes both, and what remembers a leaf (PROT_NONE, migration) remembers
//! its key. Swap entries need none: the fault that brings the page back has the area.

use machine::{Access, Cpu, ProtectionKey, VirtAddr, Word32};
use pagetable::Mode;

use crate::area::Area;
use crate::error::{FaultError, KeyError};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::{AddressSpace, EVERYTHING, SpaceId};

/// Who accesses pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Accessor {
    /// The thread of this CPU, in its own address space: its PKRU decides.
    ThisThread,
    /// Somebody to whom this CPU's PKRU means nothing (Linux: FOLL_REMOTE, FAULT_FLAG_REMOTE).
    Remote,
}

impl Area {
    /// Whether the area's key lets the access pass.
    pub(crate) fn check_key<C: Cpu>(
        &self,
        cpu: &C,
        address: VirtAddr,
        access: Access,
        accessor: Accessor,
    ) -> Result<(), FaultError> {
        match accessor {
            Accessor::ThisThread if !cpu.pkru().allows(self.key, access) => {
                Err(FaultError::KeyForbids { address, access, key: self.key })
            }
            Accessor::ThisThread | Accessor::Remote => Ok(()),
        }
    }
}

/// The keys that an address space has given out. Who reads or changes them holds its mmap lock.
pub(crate) struct Keys {
    /// Bit `n` is key `n`. The default key is nobody's to give or to take back.
    given: Word32,
}

impl Keys {
    pub(crate) const fn new() -> Self {
        Self { given: Word32::new(0) }
    }

    /// Whether areas may have the key.
    pub(crate) fn have<C: Cpu>(&self, cpu: &C, key: ProtectionKey) -> bool {
        key == ProtectionKey::DEFAULT || cpu.owned_load(&self.given) >> key.number() & 1 != 0
    }

    /// A child begins with its parent's keys, which its areas have.
    pub(crate) fn inherit<C: Cpu>(&self, cpu: &C, parent: &Self) {
        let given = cpu.owned_load(&parent.given);
        if given != 0 {
            cpu.owned_store(&self.given, given);
        }
    }

    /// The address space is as new.
    pub(crate) fn forget<C: Cpu>(&self, cpu: &C) {
        if cpu.owned_load(&self.given) != 0 {
            cpu.owned_store(&self.given, 0);
        }
    }

    fn give<C: Cpu>(&self, cpu: &C) -> Option<ProtectionKey> {
        let key = ProtectionKey::all().find(|&key| !self.have(cpu, key))?;
        cpu.owned_store(&self.given, cpu.owned_load(&self.given) | 1 << key.number());
        Some(key)
    }

    fn take_back<C: Cpu>(&self, cpu: &C, key: ProtectionKey) {
        cpu.owned_store(&self.given, cpu.owned_load(&self.given) & !(1 << key.number()));
    }
}

impl<P: Platform> Mm<'_, P> {
    /// Gives out a key that the address space has not given out: the lowest. What threads may do by it, their PKRUs say already; the caller sets its own
    /// ([`machine::ProtectionKeys`]).
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// The mode has no keys, or all are given out.
    pub fn pkey_alloc(&self, cpu: &P::Cpu, id: SpaceId) -> Result<ProtectionKey, KeyError> {
        let space = self.space(id).ok_or(KeyError::NoSpace(id))?;
        if !self.protocols().mode.has_protection_keys() {
            return Err(KeyError::NoKeys);
        }
        let mmap = space.mmap_write(cpu, EVERYTHING);
        let key = space.keys().give(cpu);
        mmap.unlock();
        key.ok_or(KeyError::AllGivenOut)
    }

    /// Takes a key back.
    ///
    /// **Areas that have the key keep it, and so do their entries**: whoever is given the key next has them, too. Linux does not look either: see pkey_free(2).
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// The key is not given out, or is the default key, which every area without another one has (Linux takes it back).
    pub fn pkey_free(&self, cpu: &P::Cpu, id: SpaceId, key: ProtectionKey) -> Result<(), KeyError> {
        let space = self.space(id).ok_or(KeyError::NoSpace(id))?;
        let mmap = space.mmap_write(cpu, EVERYTHING);
        let is_given = key != ProtectionKey::DEFAULT && space.keys().have(cpu, key);
        if is_given {
            space.keys().take_back(cpu, key);
        }
        mmap.unlock();
        if is_given { Ok(()) } else { Err(KeyError::NotGivenOut(key)) }
    }

    /// What becomes of a fault that the hardware raised because of a key. Never another attempt: the access was forbidden when it was made.
    ///
    /// The error names the key of the area, which may have been given another one since (Linux says the same of `si_pkey`). The caller holds the mmap lock.
    pub(crate) fn key_fault(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'_>,
        address: VirtAddr,
        access: Access,
    ) -> FaultError {
        match space.find(cpu, address) {
            Some(area) => FaultError::KeyForbids { address, access, key: area.key },
            None => FaultError::NoArea { address },
        }
    }
}
