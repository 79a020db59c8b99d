//! Doing a run again: on the same lab, on one built anew, and on one that is not the same.

use lab::trace::{What, Words};
use lab::{Arena, Ending, Lab, Limits, Machine, MemoryOrder, Panel, Recording, Replay, Why};
use machine::{Cpu, Word, Word64};

/// What the CPUs of a bank do.
#[derive(Clone, Copy, PartialEq)]
enum Deposit {
    Torn,
    /// The same steps, under another name of the word.
    TornElsewhere,
    /// Another operation.
    Locked,
    /// The same, after a look at a word that nobody looks at otherwise.
    Nosy,
}

/// Builds the bank and hands it over.
fn with_bank<R>(deposit: Deposit, use_it: impl FnOnce(&mut Lab<'_>) -> R) -> R {
    let arena = Arena::new();
    let (balance, other) = (arena.alloc(Word64::new(0)), arena.alloc(Word64::new(0)));
    let done = arena.alloc([Word64::new(0), Word64::new(0)]);
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    lab.name(balance, if deposit == Deposit::TornElsewhere { "account" } else { "balance" });
    lab.name(other, "other");
    for (cpu, amount) in [1, 10].into_iter().enumerate() {
        lab.cpu(format!("deposit {amount}"), move |cpu_| {
            if deposit == Deposit::Nosy {
                cpu_.store(other, cpu_.load(other) + 1);
            }
            if deposit == Deposit::Locked {
                cpu_.fetch_add(balance, amount);
            } else {
                let before = cpu_.load(balance);
                cpu_.store(balance, before + amount);
            }
            cpu_.store(&done[cpu], 1);
            cpu_.fence();
            if cpu_.load(&done[1 - cpu]) == 1 {
                assert_eq!(cpu_.load(balance), 11, "a deposit is lost");
            }
        });
    }
    use_it(&mut lab)
}

fn found() -> (Recording, lab::Trace) {
    with_bank(Deposit::Torn, |lab| {
        let report = lab.explore(&Limits::default());
        let trace = report.expect_violation("user").trace.clone();
        (trace.recording.clone(), trace)
    })
}

fn held<'r>(replay: &'r Replay, label: &str) -> Vec<Option<&'r str>> {
    let row = replay.history.rows.iter().position(|row| row.label == label).expect("there is such a row");
    replay.history.states.iter().map(|state| state[row].as_deref()).collect()
}

#[test]
fn a_run_is_the_same_on_a_lab_that_was_built_anew() {
    let (recording, trace) = found();
    let text = recording.to_string();
    let replay = with_bank(Deposit::Torn, |lab| {
        let once = lab.replay(&text.parse().expect("it was printed")).expect("it is the same lab");
        // Nothing is left of it: the lab can do it again, and can explore.
        assert_eq!(lab.replay(&recording).as_ref(), Ok(&once));
        assert_eq!(lab.explore(&Limits::default()).expect_violation("user").trace, trace);
        assert_eq!(lab.replay(&recording).as_ref(), Ok(&once));
        once
    });
    assert_eq!(replay.trace, trace);
    assert!(matches!(&replay.ending, Ending::Violation(broken) if broken.sentence.contains("a deposit is lost")));
    assert_eq!(replay.history.states.len(), trace.steps.len() + 1);
}

/// A state is what memory, store buffers and CPUs hold after so many steps.
#[test]
fn states_tell_what_each_step_changes() {
    let (recording, trace) = found();
    let replay = with_bank(Deposit::Torn, |lab| lab.replay(&recording).expect("it is the same lab"));
    let balance = held(&replay, "balance");
    assert_eq!(balance[0], Some("0"));
    for (number, step) in trace.steps.iter().enumerate() {
        let of_balance = step.target.as_deref() == Some("balance");
        let reached = of_balance && step.what == "store reaches memory";
        assert_eq!(balance[number] != balance[number + 1], reached, "{step:?}");
        let changed = replay.history.changed(number + 1);
        let buffer = |row: &usize| replay.history.rows[*row].panel == Panel::Buffer;
        let buffered = step.what == "store" || step.what == "store reaches memory";
        assert_eq!(changed.iter().any(buffer), buffered, "{step:?}");
        let others = changed.iter().filter(|row| {
            let row = &replay.history.rows[**row];
            row.panel == Panel::Cpu && row.of != step.cpu.to_string() && row.label != "next"
        });
        assert_eq!(others.count(), 0, "{step:?}");
    }
    assert_eq!(replay.history.changed(0), [0; 0]);
    let last = replay.history.states.last().expect("there is a first");
    let stopped = replay
        .history
        .rows
        .iter()
        .zip(last)
        .filter(|(row, held)| row.label == "next" && held.as_deref() == Some("stopped"));
    assert_eq!(stopped.count(), 1, "the assertion of one CPU failed");
}

#[test]
fn another_lab_departs_and_says_where_and_why() {
    let (recording, _) = found();
    let locked = with_bank(Deposit::Locked, |lab| lab.replay(&recording).expect_err("it has other steps"));
    assert!(matches!(locked.why, Why::CannotHappen | Why::Ended(_)), "{locked}");
    assert_eq!(locked.trace.steps.len() + 1, locked.step);
    let nosy = with_bank(Deposit::Nosy, |lab| lab.replay(&recording).expect_err("it accesses another word"));
    assert_eq!(nosy.why, Why::OtherWords, "{nosy}");
    // Names are for people.
    let elsewhere = with_bank(Deposit::TornElsewhere, |lab| lab.replay(&recording).expect("it has the same steps"));
    assert!(matches!(elsewhere.ending, Ending::Violation(_)));
    assert_eq!(held(&elsewhere, "account")[0], Some("0"));
}

#[test]
fn a_recording_that_does_not_fit_is_refused() {
    let refused = |text: &str| {
        let recording: Recording = text.parse().expect("it is a recording");
        with_bank(Deposit::Torn, |lab| lab.replay(&recording).expect_err("it does not fit"))
    };
    let text = found().0.to_string();
    let (steps, known) = text.split_once('|').expect("there is a bar");
    assert_eq!(refused(&format!("r0 r7 |{known}")).why, Why::CannotHappen, "there is no CPU7");
    assert_eq!(refused(&format!("d0 |{known}")).why, Why::CannotHappen, "nothing waits");
    assert_eq!(refused(&format!("r0.5 |{known}")).why, Why::CannotHappen, "there is one possibility");
    assert_eq!(refused("r0 r1 |").why, Why::OtherWords, "nothing is known of words");
    assert_eq!(refused("| 4294967295+4294967295:1").why, Why::OtherMemory);
    let longer = refused(&format!("{steps} r0 |{known}"));
    assert!(matches!(&longer.why, Why::Ended(Ending::Violation(_))), "{longer}");
    assert!(longer.to_string().contains("a deposit is lost"));
    // Half of a run is a run that could go on.
    let half: Recording = format!("r0 |{known}").parse().expect("it is a recording");
    let open = with_bank(Deposit::Torn, |lab| lab.replay(&half).expect("it begins the same"));
    assert_eq!((open.ending, open.trace.steps.len()), (Ending::Open, 1));
}

#[test]
fn a_run_tells_of_what_is_no_step_too() {
    let arena = Arena::new();
    let (constant, shared) = (arena.alloc(Word64::new(7)), arena.alloc(Word64::new(0)));
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    lab.cpu("writer", move |cpu| cpu.store(shared, cpu.load(constant)));
    lab.cpu("reader", move |cpu| assert_ne!(cpu.load(constant), cpu.load(shared)));
    let report = lab.explore(&Limits::default());
    let trace = &report.expect_violation("user").trace;
    assert_eq!(trace.acts.iter().filter(|act| act.what.is_step()).count(), trace.steps.len());
    // Each CPU has loaded the constant before its first step.
    let words = Words { offset: constant.address() - arena.base().addr(), bytes: 8 };
    let unseen: Vec<_> = trace.acts.iter().map(|act| act.what).filter(|what| !what.is_step()).collect();
    assert_eq!(unseen, [What::Unseen(words); 2]);
    assert_eq!(unseen[..], [trace.acts[0].what, trace.acts[1].what]);
}
