//! One exploration by several processes, on one machine or on many.
//!
//! A state of the lab cannot be sent: it is on the stacks of the code under test. Its fingerprint can be, and so can the way to it. Each state
//! has a member of the search that keeps account of it, by its fingerprint; whoever comes to it claims it there, and goes on from it if nobody had
//! ([`lab::Apart`]). What members send each other goes through [timely dataflow](https://docs.rs/timely), whose frontier says when all of it has been heard.
//!
//! So verdict, states, steps and final states are those of one thread alone, and the shortest run is looked for by one member as by one thread. How fast it is depends on
//! the network; on one machine, threads that share memory ([`lab::Team`]) are faster.
//!
//! The parts: `hosts` and `hello` bring processes together, `link` notices who is lost, `flow` is the dataflow, `search` is what a member does, `share` evens
//! out what is to be done.

#![forbid(unsafe_code)]

mod error;
mod flow;
mod hello;
mod hosts;
mod keeper;
mod link;
mod note;
mod recent;
mod search;
mod share;

use std::net::{Shutdown, TcpStream};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lab::Apart;
use timely::communication::Hooks;
use timely::communication::allocator::zero_copy::allocator::TcpBuilder;
use timely::communication::allocator::zero_copy::initialize::{CommsGuard, initialize_networking_from_sockets};
use timely::communication::allocator::{Allocator, ProcessBuilder};

pub use error::ClusterError;
pub use flow::Lost;
pub use hello::Terms;
pub use hosts::Hosts;
pub use keeper::Keeper;
pub use search::Ended;

use flow::Flow;
use link::{Link, Watched};
use search::Search;

/// How this process takes part.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where all processes are.
    pub hosts: Hosts,
    /// Which of them this is, from 0 on.
    pub process: usize,
    /// Members of this process: threads. The same number in all processes.
    pub threads: NonZeroUsize,
    /// How long others are waited for in the beginning.
    pub patience: Duration,
}

/// Processes that have come together.
pub struct Cluster {
    place: Place,
    link: Arc<Link>,
    members: Vec<TcpBuilder>,
    connections: CommsGuard,
    streams: Vec<TcpStream>,
}

impl Cluster {
    /// Waits for all processes. `terms` are what has to be the same in all of them, the code first; the number of threads is added.
    ///
    /// # Errors
    /// There is no such process, the port is not free, somebody does not come or does not agree, or `cancel` was set.
    pub fn join(place: Place, terms: Terms, cancel: Option<&AtomicBool>) -> Result<Self, ClusterError> {
        let Place { hosts, process, threads, patience } = &place;
        if *process >= hosts.len() {
            return Err(ClusterError::NoSuchProcess { process: *process, hosts: hosts.len() });
        }
        let mut terms = terms;
        terms.0.push(("the number of threads".to_owned(), threads.to_string()));
        terms.0.push(("the number of hosts".to_owned(), hosts.len().to_string()));
        let streams = hello::come_together(hosts, *process, &terms, *patience, cancel)?;
        let own = streams.iter().flatten().map(TcpStream::try_clone).collect::<Result<_, _>>()?;
        let link = Arc::new(Link::new(*process, threads.get()));
        let watch =
            |(other, stream): (usize, Option<_>)| stream.map(|stream| Watched::new(stream, other, Arc::clone(&link)));
        let sockets = streams.into_iter().enumerate().map(watch).collect();
        let hooks = Hooks::default();
        let inner = ProcessBuilder::new_typed_vector(threads.get(), hooks.refill.clone(), None);
        let (members, connections) =
            initialize_networking_from_sockets(inner, sockets, *process, threads.get(), hooks)?;
        Ok(Self { place, link, members, connections, streams: own })
    }

    /// Has each member of this process do `work`, in a thread of its own, and then leave together with all others. What they return, in the order of their numbers.
    ///
    /// # Errors
    /// A process was lost: `after` says what can be done then. Or a member panicked.
    pub fn run<R: Send>(
        self,
        after: &str,
        work: impl Fn(&mut Member) -> Result<R, Lost> + Sync,
    ) -> Result<Vec<R>, ClusterError> {
        let Self { place, link, members, connections, streams } = self;
        let results: Vec<Result<R, Lost>> = std::thread::scope(|scope| {
            let place = &place;
            let threads: Vec<_> = members
                .into_iter()
                .map(|member| {
                    let (link, work) = (Arc::clone(&link), &work);
                    scope.spawn(move || take_part(member, place.threads.get(), &link, work))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("its panics are caught")).collect()
        });
        match results.into_iter().collect::<Result<Vec<R>, Lost>>() {
            Ok(results) => {
                drop(connections);
                Ok(results)
            }
            Err(Lost(process)) => {
                // Its threads would wait for what does not come.
                std::mem::forget(connections);
                for stream in streams {
                    // If the other end is closed, so is this one.
                    let _ = stream.shutdown(Shutdown::Both);
                }
                if process == place.process {
                    return Err(ClusterError::Panicked);
                }
                let (host, after) = (place.hosts.0[process].clone(), after.to_owned());
                Err(ClusterError::Lost { process, host, after })
            }
        }
    }
}

fn take_part<R>(
    member: TcpBuilder,
    threads: usize,
    link: &Arc<Link>,
    work: impl Fn(&mut Member) -> Result<R, Lost>,
) -> Result<R, Lost> {
    let mut member = Member { flow: Flow::new(Allocator::Tcp(member.build()), Arc::clone(link)), threads };
    // Its end of the dataflow is dropped in good order whatever happens: otherwise timely's threads panic, too.
    let done = catch_unwind(AssertUnwindSafe(|| work(&mut member))).unwrap_or_else(|_| {
        link.give_up();
        Err(link.lost().map_or(Lost(0), Lost))
    });
    let done = done.and_then(|done| member.flow.leave().map(|()| done));
    if done.is_err() {
        // Others should hear that the lost one has gone before they hear that this one has.
        std::thread::sleep(LINGER);
    }
    done
}

/// Between the end of another process and ours.
const LINGER: Duration = Duration::from_millis(300);

/// A member of this process.
pub struct Member {
    flow: Flow,
    threads: usize,
}

impl Member {
    /// Its number, among those of all processes.
    #[must_use]
    pub fn index(&self) -> usize {
        self.flow.index()
    }

    /// How many members there are in all processes.
    #[must_use]
    pub fn members(&self) -> usize {
        self.flow.members()
    }

    /// How many members each process has.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Takes part in a search. All members do, in the same one.
    ///
    /// # Errors
    /// A process was lost.
    pub fn search(&mut self, apart: &mut Apart<'_, '_>, keeper: Option<&dyn Keeper>) -> Result<Ended, Lost> {
        Search::new(&mut self.flow, apart, keeper).run()
    }
}
