//! The connections between processes, and who was lost.
//!
//! Timely panics in a thread of its own when a connection ends, and whoever waits for that process waits for ever. So timely gets streams that notice the end, say so
//! here, and are silent from then on; whoever works looks here now and then.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use timely::communication::allocator::zero_copy::stream::Stream;

/// What all threads of this process know of the others.
pub(crate) struct Link {
    process: usize,
    /// The number of the first process whose connection ended, plus one.
    lost: AtomicUsize,
    /// Members of this process that have not come to their end.
    staying: AtomicUsize,
}

impl Link {
    pub(crate) fn new(process: usize, members: usize) -> Self {
        Self { process, lost: AtomicUsize::new(0), staying: AtomicUsize::new(members) }
    }

    /// The process whose connection ended first.
    pub(crate) fn lost(&self) -> Option<usize> {
        self.lost.load(Ordering::Acquire).checked_sub(1)
    }

    /// A member has come to its end. When all have, others may go.
    pub(crate) fn leave(&self) {
        self.staying.fetch_sub(1, Ordering::AcqRel);
    }

    fn may_end(&self) -> bool {
        self.staying.load(Ordering::Acquire) == 0
    }

    fn note_end(&self, process: usize) {
        let _ = self.lost.compare_exchange(0, process + 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// This process cannot go on: none of its members is to wait for another.
    pub(crate) fn give_up(&self) {
        self.note_end(self.process);
    }
}

/// A connection to another process.
pub(crate) struct Watched {
    stream: TcpStream,
    process: usize,
    link: Arc<Link>,
}

impl Watched {
    pub(crate) fn new(stream: TcpStream, process: usize, link: Arc<Link>) -> Self {
        Self { stream, process, link }
    }

    /// This connection has ended too soon: nobody is to act on it but those who look at the link.
    fn rest(&self) -> ! {
        self.link.note_end(self.process);
        loop {
            // Until the process ends. A panic here would poison what workers read from.
            std::thread::park();
        }
    }
}

impl Read for Watched {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(bytes) {
            Ok(read) if read > 0 => Ok(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            _ if self.link.may_end() => {
                self.link.note_end(self.process);
                Ok(0)
            }
            _ => self.rest(),
        }
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes) {
            Ok(written) => Ok(written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(_) => {
                // Nobody reads it any more.
                self.link.note_end(self.process);
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for Watched {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::new(self.stream.try_clone()?, self.process, Arc::clone(&self.link)))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // If the other end is closed already, so is this one.
        let _ = self.stream.shutdown(how);
        Ok(())
    }
}
