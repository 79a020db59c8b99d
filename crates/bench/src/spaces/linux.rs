//! The same work on the kernel that the benchmark runs on: two threads in halves of their process's address space.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Barrier;
use std::time::Duration;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::kernel::{LARGE_PAGES, PAGES};
use super::{BURSTS, TIMES, TWO, TWO_FAULT, TWO_MAP, TWO_POPULATE, TWO_ZAP, TWO_ZAP_LARGE, timed};
use crate::cores::pin_to_core;
use crate::samples::{Key, Samples, Unit};

const LINUX: &str = "Linux, halves of one process";

const PAGE: usize = 4096;
/// Pages of an area that comes and goes.
const FEW: usize = 16;

/// What one thread does again and again with its pages.
type Work = fn(&Memory, &Barrier) -> Duration;

/// Measures how many times the work of one thread two do in the same time. GUP is not among it: a process cannot ask for that alone.
pub(super) fn two_threads(samples: &mut Samples) {
    let mut works: Vec<(&'static str, u64, Work)> = vec![
        (TWO_MAP, PAGES, map),
        (TWO_FAULT, PAGES, fault),
        (TWO_ZAP, PAGES, zap),
        (TWO_ZAP_LARGE, LARGE_PAGES, zap),
    ];
    // Since Linux 5.14.
    if Memory::of(PAGE).try_advise(Advice::LinuxPopulateWrite).is_ok() {
        works.push((TWO_POPULATE, PAGES, populate));
    }
    for (operation, pages, work) in works {
        let (mut alone, mut together) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..BURSTS {
            alone = alone.min(run(1, pages, work));
            together = together.min(run(2, pages, work));
        }
        samples.add(Key { workload: TWO, operation, contestant: LINUX }, Unit::Times, 2.0 * alone / together);
    }
}

/// How long the slowest thread takes for its share.
fn run(threads: usize, pages: u64, work: Work) -> f64 {
    let meeting = Barrier::new(threads);
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let meeting = &meeting;
        let one = |core| {
            move || {
                pin_to_core(core);
                let memory = Memory::of(pages as usize * PAGE);
                memory.touch();
                meeting.wait();
                let spent = work(&memory, meeting);
                // What one gives back interrupts the other.
                meeting.wait();
                spent
            }
        };
        let threads: Vec<_> = (0..threads).map(|core| scope.spawn(one(core))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panics")).collect()
    });
    times.into_iter().max().unwrap_or_default().as_secs_f64()
}

/// Anonymous memory of 4 KiB pages.
struct Memory {
    first: NonNull<c_void>,
    bytes: usize,
}

impl Memory {
    /// # Panics
    /// If the system has no memory left.
    fn of(bytes: usize) -> Self {
        // SAFETY: a fresh mapping, placed where the kernel likes, disturbs nothing.
        let first =
            unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
        let first = NonNull::new(first.expect("there is memory")).expect("what is mapped is not at address 0");
        let memory = Self { first, bytes };
        memory.advise(Advice::LinuxNoHugepage);
        memory
    }

    /// # Panics
    /// If the kernel does not know the advice.
    fn advise(&self, advice: Advice) {
        self.try_advise(advice).expect("advice that the kernel knows");
    }

    fn try_advise(&self, advice: Advice) -> rustix::io::Result<()> {
        // SAFETY: the memory is ours, and nothing that it holds is looked at.
        unsafe { madvise(self.first.as_ptr(), self.bytes, advice) }
    }

    /// Stores to each page.
    fn touch(&self) {
        for at in (0..self.bytes).step_by(PAGE) {
            let byte = self.first.as_ptr().cast::<u8>().wrapping_add(at);
            // SAFETY: inside of the mapping, which is ours.
            unsafe { byte.write_volatile(1) };
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the whole mapping made in `of`; whoever drops it uses it no more.
        let _ = unsafe { munmap(self.first.as_ptr(), self.bytes) };
    }
}

/// Areas come and go. They are of private memory that is executable, so that Linux does not merge them with others.
fn map(_: &Memory, _: &Barrier) -> Duration {
    timed(|| {
        for _ in 0..TIMES * 256 {
            // SAFETY: a fresh mapping, placed where the kernel likes, disturbs nothing.
            let first = unsafe {
                mmap_anonymous(ptr::null_mut(), FEW * PAGE, ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE)
            };
            // SAFETY: mapped a moment ago, and never used.
            unsafe { munmap(first.expect("there is room"), FEW * PAGE) }.expect("an area");
        }
    })
}

fn fault(memory: &Memory, meeting: &Barrier) -> Duration {
    mapped_again(memory, meeting, || memory.touch())
}

fn populate(memory: &Memory, meeting: &Barrier) -> Duration {
    mapped_again(memory, meeting, || memory.advise(Advice::LinuxPopulateWrite))
}

/// Nobody unmaps meanwhile.
fn mapped_again(memory: &Memory, meeting: &Barrier, work: impl Fn()) -> Duration {
    let once = |_| {
        memory.advise(Advice::LinuxDontNeed);
        meeting.wait();
        let spent = timed(&work);
        meeting.wait();
        spent
    };
    (0..TIMES).map(once).sum()
}

fn zap(memory: &Memory, _: &Barrier) -> Duration {
    let once = |_| {
        let spent = timed(|| memory.advise(Advice::LinuxDontNeed));
        memory.touch();
        spent
    };
    (0..TIMES).map(once).sum()
}
