//! Frames with contents: handed out once, joined again, and failing where a test wants it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hosted::{DataFrames, Failures, ThreadCpu, Threads};
use machine::Frame;
use mm::{FrameSource, Membership, MemoryMap};

const FIRST: u64 = 1 << 20;

fn build(frames: u64) -> (Arc<Threads>, DataFrames) {
    let machine = Threads::new(2, |_, _| ()).expect("a small machine");
    (machine, DataFrames::new(Frame::new(FIRST), frames, Failures::none()).expect("address space"))
}

fn take_all(data: &DataFrames, cpu: &ThreadCpu, order: u8) -> Vec<Frame> {
    std::iter::from_fn(|| data.allocate(cpu, order).ok()).collect()
}

fn free(data: &DataFrames, cpu: &ThreadCpu, head: Frame, order: u8) {
    data.release(cpu, Membership { head, order });
}

#[test]
fn every_frame_is_handed_out_once_and_comes_back_whole() {
    let (machine, data) = build(1 << 10);
    let (one, other) = (machine.attach().expect("free"), machine.attach().expect("free"));
    for _ in 0..3 {
        // The lowest run of 512 has the zero page in it.
        let huge = take_all(&data, &one, 9);
        assert_eq!(huge, [Frame::new(FIRST + 512)]);
        // What one CPU keeps in stock the other gets before there is none.
        let mut small: Vec<u64> = [(&one, 5), (&other, 5), (&one, 10_000)]
            .iter()
            .flat_map(|&(cpu, most)| std::iter::from_fn(|| data.allocate(cpu, 0).ok()).take(most))
            .map(Frame::number)
            .collect();
        small.sort_unstable();
        assert_eq!(small, (FIRST + 1..FIRST + 512).collect::<Vec<_>>());
        assert_eq!(data.in_use(), 1023);
        small.iter().for_each(|&frame| free(&data, &other, Frame::new(frame), 0));
        // In pieces, as after a split.
        (0..512).step_by(2).for_each(|at| free(&data, &one, huge[0].wrapping_add(at), 1));
        assert_eq!(data.leaks(), []);
    }
}

#[test]
fn contents_are_zeroed_and_copied() {
    let (machine, data) = build(64);
    let cpu = machine.attach().expect("free");
    let (from, to) = (data.allocate(&cpu, 1).expect("free"), data.allocate(&cpu, 1).expect("free"));
    data.write(from, 0, 1);
    data.write(from.wrapping_add(1), 4088, 2);
    data.copy(&cpu, from, to, 2);
    assert_eq!((data.read(to, 0), data.read(to.wrapping_add(1), 4088)), (1, 2));
    data.zero(&cpu, Membership { head: to, order: 1 });
    assert_eq!((data.read(to, 0), data.read(to.wrapping_add(1), 4088)), (0, 0));
    assert_eq!(data.read(from, 0), 1);
}

#[test]
fn exactly_the_allocation_that_was_named_fails() {
    let (machine, data) = build(64);
    let cpu = machine.attach().expect("free");
    data.failures().fail_at(3);
    let got: Vec<bool> = (0..5).map(|_| data.allocate(&cpu, 0).is_ok()).collect();
    assert_eq!(got, [true, true, false, true, true]);
    assert_eq!(data.failures().failed(), 1);
}

#[test]
fn what_is_given_back_twice_is_noticed() {
    let (machine, data) = build(64);
    let cpu = machine.attach().expect("free");
    let frame = data.allocate(&cpu, 0).expect("free");
    free(&data, &cpu, frame, 0);
    assert!(catch_unwind(AssertUnwindSafe(|| free(&data, &cpu, frame, 0))).is_err());
}
