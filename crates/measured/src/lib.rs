//! Results of measurements as a program writes them: where they go in a Markdown file that people write, too, and on which machine they were made.

#![forbid(unsafe_code)]

mod destination;
mod host;

pub use destination::Destination;
pub use host::Host;
