//! userfaultfd: faults that somebody else resolves (Linux: `fs/userfaultfd.c`, `mm/userfaultfd.c`).
//!
//! No file descriptor, but what a kernel needs to build one: areas can be registered, faults there are handed to the platform's [`UffdHandler`], and whoever reads
//! of them there resolves them. So memory can come from another machine while it is used (post-copy migration), or be copied at leisure before it is written (snapshots).
//!
//! | module | what |
//! |---|---|
//! | `modes` | which faults are handed over |
//! | `handler` | to whom |
//! | `register` | areas that are registered |
//! | `wait` | what a fault does that was handed over |
//! | `fill` | a page where none was: UFFDIO_COPY, UFFDIO_ZEROPAGE |
//! | `write_protect` | UFFDIO_WRITEPROTECT |
//! | `mark` | what entries remember of it |
//!
//! # Who resolves, and who changes areas
//!
//! Whoever resolves holds the mmap lock for *reading*, as faults do: the page-table lock decides who fills an entry. The areas may have been unmapped, moved or
//! unregistered since the fault was read; that is an error ([`UffdError::NotRegistered`]) and no harm.
//!
//! # What is write-protected stays so
//!
//! A leaf that is protected has a mark, and no right to write; what remembers it while it is away has a flag, and a page of a file that went has a marker in its place. Only
//! [`Mm::uffd_write_unprotect`](crate::Mm::uffd_write_unprotect) and the end of the registration take them away:
//!
//! | who | and the mark |
//! |---|---|
//! | a store, GUP for writing, also by force | is handed over |
//! | swap, migration, split, mprotect, a copy that makes the page the space's own | keeps it |
//! | zap, truncation and reclaim of a file's page | leave a marker |
//! | zap of anonymous memory | takes it away, with the page |
//! | fork, mremap | the child, and the new place, are not registered: it is left behind |
//! | collapse, retracting and sharing a table, merge | is refused |
//!
//! The mark is a bit that PAE does not have: there areas cannot be registered for it (Linux: `HAVE_ARCH_USERFAULTFD_WP` is 64-bit only). In registered areas faults map small pages only.

mod error;
mod fill;
mod handler;
mod mark;
mod modes;
mod register;
mod wait;
mod write_protect;

pub use error::{UffdError, UffdFillError, UffdRegisterError};
pub(crate) use fill::UffdContents;
pub use fill::UffdProtection;
pub use handler::{NoUffd, UffdFault, UffdHandler, UffdReason};
pub use modes::UffdModes;
