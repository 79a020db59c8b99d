//! User code on a simulated CPU.

use machine::user::{FaultCause, PageFault};
use machine::{Access, UserAccess, VirtAddr};

use crate::core::Stop;
use crate::cpu::LabCpu;
use crate::execute::{NOT_PRESENT, REACHED};
use crate::op::{Kind, Op};
use crate::verdict::MisuseKind;

impl LabCpu {
    /// A user access, and what it loaded.
    #[track_caller]
    fn user(&self, address: VirtAddr, access: Access, data: Data) -> Result<u64, PageFault> {
        let mut op = Op::new(Kind::UserAccess);
        op.a = address.as_u64();
        op.b = (access == Access::Write) as u64;
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
            NOT_PRESENT => Err(PageFault { address, access, cause: FaultCause::NotPresent }),
            _ => Err(PageFault { address, access, cause: FaultCause::Protection }),
        }
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
        self.user(address, access, Data::None).map(|_| ())
    }

    #[track_caller]
    fn user_load(&self, address: VirtAddr) -> Result<u64, PageFault> {
        self.user(address, Access::Read, Data::Word(0))
    }

    #[track_caller]
    fn user_store(&self, address: VirtAddr, value: u64) -> Result<(), PageFault> {
        self.user(address, Access::Write, Data::Word(value)).map(|_| ())
    }
}
