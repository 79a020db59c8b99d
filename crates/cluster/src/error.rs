//! Why processes do not come together, or do not stay so.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;

/// Why there is no cluster, or no longer.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[non_exhaustive]
pub enum ClusterError {
    /// The list of hosts cannot be read.
    #[error("cannot read the hosts file {}: {cause}", path.display())]
    #[diagnostic(help("it has a line `host:port` for each process"))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// A line of it is no host.
    #[error("{}:{line}: `{text}` is no host: {why}", path.display())]
    #[diagnostic(help("write `host:port`, for example `10.0.0.7:2101`, one process a line"))]
    BadHost {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is there.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It names none.
    #[error("the hosts file {} names no host", path.display())]
    #[diagnostic(help("write a line `host:port` for each process"))]
    NoHosts {
        /// The file.
        path: PathBuf,
    },
    /// There is no such process.
    #[error("there is no process {process}: the hosts file names {hosts}")]
    #[diagnostic(help("processes are numbered from 0 on, in the order of the lines: the last is {}", hosts - 1))]
    NoSuchProcess {
        /// The number that was given.
        process: usize,
        /// How many there are.
        hosts: usize,
    },
    /// The address cannot be listened at.
    #[error("process {process} cannot listen at {host}: {cause}")]
    #[diagnostic(help("line {} of the hosts file has to be a free port of this machine", process + 1))]
    Listen {
        /// This process.
        process: usize,
        /// Its line.
        host: String,
        /// What the system says.
        cause: io::Error,
    },
    /// Somebody did not come.
    #[error("process {process} at {host} did not come within {seconds} s")]
    #[diagnostic(help("start one process for each line of the hosts file, each with its `--process N`"))]
    Absent {
        /// Who is missing.
        process: usize,
        /// Where it should be.
        host: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// What is wanted was taken back while processes came together.
    #[error("cancelled while waiting for process {process} at {host}")]
    Cancelled {
        /// Who was waited for.
        process: usize,
        /// Where it should be.
        host: String,
    },
    /// Another program runs there.
    #[error("process {process} at {host} runs another version of the code ({theirs}, here {ours})")]
    #[diagnostic(help("build the same source on all machines: fingerprints of one say nothing of another"))]
    OtherCode {
        /// Who.
        process: usize,
        /// Where.
        host: String,
        /// The beginning of its digest.
        theirs: String,
        /// The beginning of ours.
        ours: String,
    },
    /// It was asked something else.
    #[error("process {process} at {host} was asked something else: {what} is not as here")]
    #[diagnostic(help("give all processes the same arguments but for `--process`, and the same files"))]
    OtherQuestion {
        /// Who.
        process: usize,
        /// Where.
        host: String,
        /// What differs.
        what: String,
    },
    /// Two say that they are the same.
    #[error("two processes were started as process {process}")]
    #[diagnostic(help("each has a `--process N` of its own, that of its line in the hosts file"))]
    Twice {
        /// Which.
        process: usize,
    },
    /// Something that is no `fastgup` listens there.
    #[error("{host} does not answer as process {process} would")]
    #[diagnostic(help("is another program, or another version of this one, at that port?"))]
    Stranger {
        /// Who should be there.
        process: usize,
        /// Where.
        host: String,
    },
    /// A process has gone.
    #[error("process {process} at {host} was lost")]
    #[diagnostic(help("{after}"))]
    Lost {
        /// Who.
        process: usize,
        /// Where it was.
        host: String,
        /// What can be done.
        after: String,
    },
    /// A member of this process has panicked.
    #[error("a thread of this process has panicked")]
    Panicked,
    /// The system said no.
    #[error("cannot set up connections")]
    System(#[from] io::Error),
}
