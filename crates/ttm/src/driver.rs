//! What the buffer manager asks its driver.

use mm::Platform;

use crate::error::Refused;
use crate::extent::Extent;
use crate::fence::Fence;
use crate::object::ObjectId;
use crate::place::Kind;

/// The CPUs of a driver's machine.
pub type CpuOf<D> = <<D as Driver>::Platform as Platform>::Cpu;

/// When an engine is done with what it was asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// It is done already.
    Done,
    /// When the fence is reached.
    Until(Fence),
}

/// What a driver does for its buffer manager (Linux: `ttm_device_funcs`).
///
/// All methods are called with the object reserved, and with no spin lock held.
pub trait Driver {
    /// The machine that the engine runs on.
    type Platform: Platform;

    /// Where an object goes that has to leave `from`, which is not system memory: to a smaller kind (Linux: `evict_flags`).
    fn evict_to(&self, cpu: &CpuOf<Self>, object: ObjectId, from: Kind) -> Kind;

    /// Whether it is worth while to evict the object. Asked under the lock of a resource: must not wait.
    fn is_eviction_valuable(&self, cpu: &CpuOf<Self>, object: ObjectId) -> Worth {
        let _ = (cpu, object);
        Worth::Evicting
    }

    /// Fills memory that no object has been in with zeros: what was there before belongs to others.
    ///
    /// # Errors
    /// Nothing was begun.
    fn clear(&self, cpu: &CpuOf<Self>, to: &Extent<'_>) -> Result<Work, Refused>;

    /// Copies an object. `from` stays as it is until the work is done, and nobody else accesses `to`.
    ///
    /// # Errors
    /// Nothing was begun.
    fn copy(&self, cpu: &CpuOf<Self>, from: &Extent<'_>, to: &Extent<'_>) -> Result<Work, Refused>;

    /// An object that is attached to a dynamic importer is going to move (Linux: `dma_buf_attach_ops::move_notify`). On return the importer uses
    /// nothing that it was told of where the object is, but for work that has a fence in the object.
    fn move_notify(&self, cpu: &CpuOf<Self>, importer: u64, object: ObjectId) {
        let _ = (cpu, importer, object);
    }

    /// Where objects are pinned for importers that cannot follow moves.
    fn export_to(&self) -> Kind {
        Kind::SYSTEM
    }
}

/// Whether to evict an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Worth {
    /// Yes.
    Evicting,
    /// No: it would come back at once, or leave nothing of use.
    Keeping,
}
