//! Buffer objects.
#![no_std]

pub mod device;
pub mod dirty;
pub mod driver;
pub mod error;
mod evict;
pub mod extent;
pub mod fence;
mod ghost;
mod moving;
pub mod object;
mod page;
mod pages;
mod pin;
pub mod place;
pub mod range;
pub mod resource;
pub mod share;
pub mod ww;

pub use device::{Device, Parts};
pub use dirty::Method;
pub use driver::{CpuOf, Driver, Work, Worth};
pub use error::{MoveError, Refused};
pub use extent::{Extent, FrameRun, for_each_pair};
pub use fence::{Fence, FenceSlot, Timeline, TimelineId, Usage};
pub use ghost::GhostSlot;
pub use moving::Moved;
pub use object::{Handle, Object, ObjectId, Reserved, Room};
pub use place::{Backing, Kind, Place, Placed, Pressure};
pub use range::{Fit, NoRoom, RangeSlot};
pub use resource::Resource;
pub use share::{Attachment, AttachmentSlot, Importer};
pub use ww::{AcquireContext, LockError, Tickets, WwMutex};
