//! Buffer objects for graphics drivers, after the model of Linux's TTM: memory that is now the card's, now the system's, and mapped by user code all the while.
//!
//! # Where things are
//!
//! | module | what |
//! |---|---|
//! | [`device`] | the buffer manager of one device: objects made, found, given back |
//! | [`object`] | one object, and what is known of it |
//! | [`place`], [`resource`], [`range`] | kinds of memory, where an object may be, room |
//! | [`ww`] | reservation: locks that are taken together, in any order, without a deadlock |
//! | [`fence`], `ghost` | how long an engine is at work, and what must stay for so long |
//! | `moving`, `evict` | from one place to another; making room |
//! | `quarantine` | what an engine may write to, nobody knows for how long |
//! | `pages`, `page` | objects in memory of the system: frames, and swap |
//! | `fault` | CPUs that access an object, with leaves as large as it allows |
//! | [`dirty`] | which pages CPUs have written |
//! | `pin`, [`share`] | objects that stay where they are; objects that other drivers use |
//! | [`driver`] | what the driver does for the buffer manager |
//! | [`extent`] | the frames of an object in one place |
//!
//! # The rule that everything serves
//!
//! An object that is mapped may move at any time. So nobody but the driver may keep a page of it: entries are *special* at every level, GUP refuses them, fast
//! and slow, and before an object leaves its place it is revoked from all page tables. A CPU that accesses it afterwards faults, waits until the object has
//! arrived, and is given an entry for the new place.
//!
//! # Locks, outermost first
//!
//! mmap lock (faults: for reading), reservation of an object (faults only try), rmap lock of the device's file, page-table locks, lock of a resource.
//!
//! # A driver
//!
//! implements [`Driver`] (copy, clear, where to evict), answers [`mm::DriverFault`] with [`Device::fault`] and [`Device::wait_for_fault`], and then makes
//! objects, reserves them and says where they should be:
//!
//! ```
//! use machine::VirtAddr;
//! use mm::{AreaRights, SpaceId};
//! use ttm::{AcquireContext, CpuOf, Device, Driver, Kind, Place};
//!
//! const VRAM: Kind = Kind::new(1);
//!
//! fn show<D: Driver>(device: &Device<'_, D>, cpu: &CpuOf<D>, space: SpaceId) -> Option<()> {
//!     let buffer = device.create(cpu, 4096).ok()?;
//!     device.mmap(cpu, &buffer, (0, 4096), (space, VirtAddr::new(0x4000_0000)), AreaRights::ReadWrite).ok()?;
//!     let context = AcquireContext::new(cpu, device.tickets());
//!     let mut reserved = device.reserve(&buffer, &context).ok()?;
//!     device.validate(&mut reserved, &[Place::anywhere(VRAM), Place::anywhere(Kind::SYSTEM)], Some(&context)).ok()?;
//!     reserved.unlock();
//!     device.put(cpu, buffer).ok()
//! }
//! ```
//!
//! `examples/frame_buffer` is a whole one, on threads.

#![no_std]

pub mod device;
pub mod dirty;
pub mod driver;
pub mod error;
mod evict;
pub mod extent;
mod fault;
pub mod fence;
mod ghost;
mod moving;
pub mod object;
mod page;
mod pages;
mod pin;
pub mod place;
mod quarantine;
pub mod range;
pub mod resource;
pub mod share;
pub mod ww;

pub use device::{Device, Parts};
pub use dirty::Method;
pub use driver::{CpuOf, Driver, Work, Worth};
pub use error::{FenceError, MoveError, Refused};
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
