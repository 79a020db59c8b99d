//! Memory that comes from elsewhere while it is used: one CPU brings in what others touch, and what devices pin.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::memory::anonymous;
use machine::Cpu;

const PAGES: u64 = 64;
const USERS: u64 = 2;

/// What was in page `number` on the machine that it comes from.
const fn contents(number: u64) -> u64 {
    1000 + number
}

#[test]
fn each_page_comes_once_and_whole() {
    let kernel = Kernel::build(USERS as u32 + 1, TABLES);
    let boot = kernel.machine.attach().expect("a free CPU");
    kernel.mm.mmap(&boot, ONE, anonymous(AT, PAGES, 0)).expect("a good area");
    kernel.mm.uffd_register(&boot, ONE, AT, PAGES, MISSING).expect("anonymous memory");
    drop(boot);
    let done = AtomicBool::new(false);
    let brought: u64 = std::thread::scope(|scope| {
        let users: Vec<_> = (0..USERS)
            .map(|user| {
                scope.spawn({
                    let kernel = &kernel;
                    move || use_pages(kernel, user)
                })
            })
            .collect();
        let reader = scope.spawn(|| bring_pages(&kernel, &done));
        users.into_iter().for_each(|user| user.join().expect("no assertion failed"));
        done.store(true, Ordering::SeqCst);
        reader.join().expect("no assertion failed")
    });
    assert_eq!(brought, PAGES, "each page once, whoever asks for it and however often");
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.munmap(&cpu, ONE, AT, PAGES).expect("the tables are whole");
    kernel.assert_all_is_back(TABLES);
}

/// Loads, and pins, in an order of its own.
fn use_pages(kernel: &Kernel, user: u64) {
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space(0));
    for step in 0..PAGES {
        let number = if user == 0 { step } else { PAGES - 1 - step };
        let found = if step % 2 == 0 {
            kernel.load(&cpu, 0, page(number)).expect("it comes")
        } else {
            let mut word = None;
            let got = kernel.mm.gup(&cpu, kernel.space(0), page(number), 1, Foll::PIN, |run| {
                word = Some(kernel.data.read(run.frame(), 0));
                kernel.mm.release(&cpu, run, Access::Read).expect("held");
            });
            assert_eq!(got, Ok(1));
            word.expect("one run")
        };
        assert_eq!(found, contents(number), "page {number} is whole");
    }
    kernel.mm.switch(&cpu, kernel.space(0), kernel.space(1));
}

/// Resolves what is told until everybody is done. Returns how many pages it brought.
fn bring_pages(kernel: &Kernel, done: &AtomicBool) -> u64 {
    let cpu = kernel.machine.attach().expect("a free CPU");
    let mut brought = 0;
    while !done.load(Ordering::SeqCst) {
        for fault in kernel.uffd.take_told() {
            let number = (fault.address.as_u64() - AT.as_u64()) / 4096;
            match copy(kernel, &cpu, fault.address, contents(number), UffdProtection::None) {
                Ok(()) => brought += 1,
                // Two asked for it. Who told late finds it there.
                Err(UffdFillError { error: UffdError::Exists { .. }, .. }) => {
                    kernel.mm.uffd_wake(&cpu, kernel.space(0), fault.address, 1).expect("a page");
                }
                Err(error) => panic!("{error}"),
            }
        }
        cpu.relax();
    }
    brought
}
