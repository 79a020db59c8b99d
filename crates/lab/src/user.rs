//! User code on a simulated CPU.

use machine::user::{FaultCause, PageFault};
use machine::{Access, UserAccess, VirtAddr};

use crate::core::Stop;
use crate::cpu::LabCpu;
use crate::execute::{Deed, NOT_PRESENT, PROTECTION_KEY, REACHED};
use crate::op::{Kind, Op};
use crate::verdict::MisuseKind;

impl LabCpu {
    /// A user access, and what it loaded.
    #[track_caller]
    fn user(&self, address: VirtAddr, deed: Deed, data: Data) -> Result<u64, FaultCause> {
        let mut op = Op::new(Kind::UserAccess);
        op.a = address.as_u64();
        op.b = deed.number();
        (op.bytes, op.c) = match data {
            Data::None => (0, 0),
            Data::Word(value) => (8, value),
        };
        let watched = self.core().machine.watched.iter().any(|page| page.align_down(4096) == address.align_down(4096));
        if !watched {
            let sentence = format!("a user access at {address}, which is not on a watched page ({})", op.location);
            self.stop(Stop::Misuse(MisuseKind::Setup, sentence));
        }
        match self.perform_op(&mut op) {
            // SAFETY: a live local, which the explorer may have written through a pointer.
            REACHED => Ok(unsafe { (&raw const op.c).read_volatile() }),
            NOT_PRESENT => Err(FaultCause::NotPresent),
            PROTECTION_KEY => Err(FaultCause::ProtectionKey),
            _ => Err(FaultCause::Protection),
        }
    }

    /// Fetches an instruction from the page at `address`, as user code would, and returns the page's word. It needs the right to execute where the
    /// machine knows that right ([`crate::ExecuteDisable`]).
    ///
    /// # Errors
    /// What the code of the page fault says that the hardware raised.
    #[track_caller]
    pub fn user_fetch(&self, address: VirtAddr) -> Result<u64, FaultCause> {
        self.user(address, Deed::Fetch, Data::Word(0))
    }

    /// Stores to the page at `address` as CALL or WRSS of user code would to its shadow stack. What is stored does not matter. It needs a page of a shadow stack, which no page is where the machine
    /// has none ([`crate::ShadowStacks`]).
    ///
    /// # Errors
    /// What the code of the page fault says that the hardware raised, besides SS (SDM vol. 3A, 4.7), which it says of each.
    #[track_caller]
    pub fn user_push(&self, address: VirtAddr) -> Result<(), FaultCause> {
        self.user(address, Deed::Push, Data::None).map(drop)
    }
}

/// What a user access moves.
enum Data {
    /// Nothing: only which frame is reached matters.
    None,
    /// A word: the one to store.
    Word(u64),
}

impl UserAccess for LabCpu {
    #[track_caller]
    fn user_access(&self, address: VirtAddr, access: Access) -> Result<(), PageFault> {
        let deed = if access == Access::Write { Deed::Store } else { Deed::Load };
        self.user(address, deed, Data::None).map(|_| ()).map_err(|cause| PageFault { address, access, cause })
    }

    #[track_caller]
    fn user_load(&self, address: VirtAddr) -> Result<u64, PageFault> {
        self.user(address, Deed::Load, Data::Word(0)).map_err(|cause| PageFault {
            address,
            access: Access::Read,
            cause,
        })
    }

    #[track_caller]
    fn user_store(&self, address: VirtAddr, value: u64) -> Result<(), PageFault> {
        let fault = |cause| PageFault { address, access: Access::Write, cause };
        self.user(address, Deed::Store, Data::Word(value)).map(|_| ()).map_err(fault)
    }
}
