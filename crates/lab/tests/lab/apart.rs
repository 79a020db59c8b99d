//! A member of a search whose members share no memory does its share of what one thread does.

use std::collections::VecDeque;

use lab::{
    Apart, Arena, Checkpoint, Claim, Claimed, Claims, Lab, LabCpu, Limits, Machine, MemoryOrder, Report, Total,
    Trouble, Verdict, rule,
};
use machine::{Cpu, CpuId, SpinLock, Word64};

struct Words {
    shared: [Word64; 2],
    lock: SpinLock,
    count: Word64,
}

type Program = fn(&LabCpu, &Words, usize);

fn with_lab<R>(cpus: usize, program: Program, search: impl FnOnce(&mut Lab<'_>) -> R) -> R {
    let arena = Arena::new();
    let words =
        arena.alloc(Words { shared: [const { Word64::new(0) }; 2], lock: SpinLock::new(), count: Word64::new(0) });
    let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
    for number in 0..cpus {
        lab.cpu(format!("p{number}"), move |cpu| program(cpu, words, number));
    }
    lab.observe(move |end| {
        let reported = (0..cpus).map(|cpu| end.reported(CpuId::new(cpu as u32), 0));
        words.shared.iter().chain([&words.count]).map(|word| end.read(word)).chain(reported).collect()
    });
    search(&mut lab)
}

fn mix(cpu: &LabCpu, words: &Words, number: usize) {
    let mine = &words.shared[number % 2];
    cpu.store(mine, cpu.load(mine) + 1);
    {
        let _held = words.lock.lock(cpu);
        cpu.store(&words.count, cpu.load(&words.count) + 1);
    }
    cpu.report(0, cpu.load(&words.shared[(number + 1) % 2]));
}

fn dekker(cpu: &LabCpu, words: &Words, number: usize) {
    cpu.store(&words.shared[number % 2], 1);
    if cpu.load(&words.shared[(number + 1) % 2]) == 0 {
        assert_eq!(cpu.fetch_add(&words.count, 1), 0, "both are inside");
    }
}

/// A member alone, whose claims are answered only after so many others. Each so many rounds its work is left, and gone on with.
struct Alone {
    late: usize,
    claims: Claims,
    asked: VecDeque<(u128, Claimed)>,
}

impl Alone {
    fn answer(&mut self, apart: &mut Apart<'_, '_>) {
        while let Some((fingerprint, claimed)) = self.asked.pop_front() {
            let is_new = self.claims.claim(fingerprint);
            apart.answer(if is_new { Claim::Granted(claimed) } else { Claim::Taken(claimed) });
        }
    }

    fn search(&mut self, apart: &mut Apart<'_, '_>, between: &mut dyn FnMut(&mut Self, &mut Apart<'_, '_>)) -> Report {
        loop {
            self.claims = Claims::new(apart.fingerprints());
            let (root, claimed) = apart.root();
            self.asked.push_back((root, claimed));
            let mut trouble = None;
            while trouble.is_none() && (apart.pending() > 0 || !self.asked.is_empty()) {
                let Self { late, claims, asked } = self;
                let mut claim = |fingerprint, claimed| {
                    if (fingerprint as usize).is_multiple_of(3) {
                        return if claims.claim(fingerprint) { Claim::Granted(claimed) } else { Claim::Taken(claimed) };
                    }
                    asked.push_back((fingerprint, claimed));
                    Claim::Asked
                };
                trouble = apart.work(*late, &mut claim).err();
                self.answer(apart);
                if trouble.is_none() {
                    between(self, apart);
                }
            }
            if trouble != Some(Trouble::WrongAssumption) {
                let (counts, states, bytes) = (apart.counts(), self.claims.states(), self.claims.bytes() as u64);
                if let Some(report) = apart.conclude(&Total { counts, states, bytes, trouble }) {
                    return report;
                }
            }
            apart.begin_again();
        }
    }
}

fn alone(
    cpus: usize,
    program: Program,
    late: usize,
    between: &mut dyn FnMut(&mut Alone, &mut Apart<'_, '_>),
) -> Report {
    with_lab(cpus, program, |lab| {
        lab.explore_apart(&Limits::default(), &mut |_| (), |apart| {
            Alone { late, claims: Claims::new(apart.fingerprints()), asked: VecDeque::new() }.search(apart, between)
        })
    })
}

fn whole(cpus: usize, program: Program) -> Report {
    with_lab(cpus, program, |lab| lab.explore(&Limits::default()))
}

fn assert_same(report: &Report, whole: &Report, what: &str) {
    assert_eq!(
        (&report.verdict, report.states, report.transitions, report.ends, &report.observations),
        (&whole.verdict, whole.states, whole.transitions, whole.ends, &whole.observations),
        "{what}"
    );
}

#[test]
fn late_answers_change_nothing() {
    let whole = whole(4, mix);
    assert_eq!(whole.verdict, Verdict::Safe);
    for late in [1, 7, 1000] {
        assert_same(&alone(4, mix, late, &mut |_, _| ()), &whole, &format!("{late} at a time"));
    }
}

#[test]
fn the_shortest_run_is_the_same() {
    let whole = whole(2, dekker);
    let report = alone(2, dekker, 5, &mut |_, _| ());
    assert_eq!(report.expect_violation(rule::USER), whole.expect_violation(rule::USER));
}

#[test]
fn what_is_given_away_comes_back_as_it_was() {
    let mut moved = 0;
    let report = alone(4, mix, 50, &mut |_, apart| {
        let before = apart.pending();
        let ways = apart.give(before / 2);
        moved += ways.len();
        apart.take(ways);
        assert_eq!(apart.pending(), before);
    });
    assert!(moved > 1000, "{moved} states were given away");
    assert_same(&report, &whole(4, mix), "given away");
}

#[test]
fn a_snapshot_is_gone_on_with() {
    let mut rounds = 0;
    let report = alone(4, mix, 200, &mut |alone, apart| {
        rounds += 1;
        if rounds % 20 != 0 {
            return;
        }
        let mut file = Vec::new();
        apart.snapshot(&alone.claims, |snapshot| snapshot.write(b"", &mut file)).expect("memory is not full");
        let (counts, pending) = (apart.counts(), apart.pending());
        alone.claims = apart.restore(Checkpoint::read(&file[..]).expect("whole")).expect("the same lab");
        assert_eq!((apart.counts(), apart.pending()), (counts, pending));
    });
    assert!(rounds > 100, "{rounds} rounds");
    assert_same(&report, &whole(4, mix), "left and gone on with");
}
