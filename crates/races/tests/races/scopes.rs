//! A race at another scope is another litmus file, and the lab decides it as if somebody had written it.

use races::scope::{NoScope, Scope};
use races::{MemoryOrder, Options, Race, Source, VariantReport, Verdict, decide};

fn race(text: &str) -> Race {
    Race::new(Source::new("t", text)).unwrap_or_else(|error| panic!("{}\n{text}", error.one_line()))
}

fn scope(cpus: usize, entries: u64) -> Scope {
    Scope { cpus, entries }
}

fn at(race: &Race, cpus: usize, entries: u64) -> Race {
    race.at(scope(cpus, entries)).unwrap_or_else(|error| panic!("{error}"))
}

fn reports(race: &Race, memory: MemoryOrder, variant: &str) -> Vec<VariantReport> {
    let mut reports = Vec::new();
    let variants = if variant.is_empty() { Vec::new() } else { vec![variant.to_owned()] };
    let options = Options { memory: Some(memory), variants, ..Options::default() };
    decide(std::slice::from_ref(race), &options, |report| reports.push(report));
    reports
}

fn report(race: &Race, memory: MemoryOrder, variant: &str) -> VariantReport {
    let mut reports = reports(race, memory, variant);
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

const WALK: &str = "MM_X86_64 walk\nReplicate=P0\n{ cpus=2; entries=1; frame A = 0x1000 copies=entries; file f = A; \
    area x file=f at=0x40000000 pages=entries rights=rw; mapped x; }\n\
    P0 | P1 ;\n r0 = gup_fast(x, pin) | munmap(x) ;\nvariant exact : lifetime=rcu => safe\n";

/// Two CPUs that add one.
const ADD: &str = "X86_64 add\nReplicate=P0\n{ uint64_t x; }\n P0 | P1 ;\n incq (x) | incq (x) ;\n~exists (x=0)\n";

/// What somebody would write who wants three.
const THREE_ADD: &str = "X86_64 by-hand\nReplicate=P0\n{ uint64_t x; }\n P0 | P1 | P2 ;\n incq (x) | incq (x) | incq (x) ;\n~exists (x=0)\n";

/// What somebody would write who wants two pages.
const TWO_PAGES: &str = "MM_X86_64 by-hand\n{ frame A = 0x1000; frame B = 0x1001; file f = A B; \
    area x file=f at=0x40000000 pages=2 rights=rw; mapped x; }\n\
    P0 | P1 ;\n r0 = gup_fast(x, pin) | munmap(x) ;\nvariant exact : lifetime=rcu => safe\n";

#[test]
fn it_is_the_file_that_somebody_would_write() {
    let more_cpus = (ADD, scope(3, 1), THREE_ADD, "", "add+3CPUs+1entry");
    let more_entries = (WALK, scope(2, 2), TWO_PAGES, "exact", "walk+2CPUs+2entries");
    for (small, scope, by_hand, variant, name) in [more_cpus, more_entries] {
        let larger = report(&at(&race(small), scope.cpus, scope.entries), MemoryOrder::Tso, variant);
        let by_hand = report(&race(by_hand), MemoryOrder::Tso, variant);
        assert_eq!(larger.verdict, Verdict::Safe);
        let counts = |report: &VariantReport| (report.verdict, report.cpus, report.states, report.transitions);
        assert_eq!(counts(&larger), counts(&by_hand));
        assert_eq!(larger.race, name);
    }
}

#[test]
fn its_own_scope_is_the_file_itself() {
    let race = race(WALK);
    assert_eq!(race.scope(), scope(2, 1));
    let same = at(&race, 2, 1);
    assert_eq!((same.source.name(), same.source.text()), (race.source.name(), race.source.text()));
}

#[test]
fn more_cpus_are_where_the_first_is() {
    let spaces = race(
        "MM_X86_64 t\nReplicate=P1\n{ cpus=2; nmi=1; frame A = 0x1000; file f = A; space p; space q cpus=1; \
         area x file=f space=p at=0x40000000; area y file=f space=q at=0x40000000; }\n\
         P0 | P1 | NMI ;\n touch(x) | touch(y) | ;\nvariant v => ?\n",
    );
    let text = at(&spaces, 4, 1).source.text().to_owned();
    for expected in ["cpus=4;", "nmi=1,2,3;", "space q cpus=1,2,3;"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    // Columns in turn, with what their registers hold at the start.
    let turns =
        race("X86_64 t\nReplicate=P1, P0\n{ 0:rax=7; }\n P0 | P1 ;\n movq %rax,(x) | movq $2,(x) ;\nexists (x=7)\n");
    let text = at(&turns, 4, 1).source.text().to_owned();
    assert!(text.contains("3:rax=7;") && !text.contains("2:rax"), "{text}");
}

#[test]
fn cpus_that_nobody_can_tell_apart_share_states() {
    let text = |replicate: &str| {
        format!(
            "X86_64 t\n{replicate}{{ uint64_t x; uint64_t y; }}\n P0 | P1 | P2 | P3 ;\n \
             movq $1,(x) | movq (y),%rax | movq (y),%rax | movq (y),%rax ;\n \
             movq $1,(y) | movq (x),%rbx | movq (x),%rbx | movq (x),%rbx ;\nexists (1:rax=1 /\\ 1:rbx=0)\n"
        )
    };
    for memory in MemoryOrder::ALL {
        let apart = report(&race(&text("")), memory, "");
        let alike = report(&race(&text("Replicate=P1\n")), memory, "");
        assert_eq!((apart.verdict, apart.observation), (alike.verdict, alike.observation));
        assert_eq!(apart.finals, alike.finals, "of the CPU that is asked about");
        assert!(alike.states < apart.states, "{} and {}", alike.states, apart.states);
    }
}

#[test]
fn what_a_file_does_not_say_is_not_made_up() {
    let silent = race("X86_64 t\n{}\n P0 ;\n movq $1,(x) ;\nexists (x=1)\n");
    let told = |race: &Race, cpus, entries| race.at(scope(cpus, entries)).map(|race| race.litmus.cpus());
    assert!(matches!(told(&silent, 2, 1), Err(NoScope::Cpus { last: 0, .. })));
    assert!(matches!(told(&silent, 1, 2), Err(NoScope::Entries { .. })));
    let walk = race(WALK);
    assert!(matches!(told(&walk, 1, 1), Err(NoScope::FewerCpus { least: 2 })));
    let Err(NoScope::Impossible(error)) = told(&walk, 2, 65) else { panic!("65 entries") };
    assert!(error.one_line().contains("65 is out of range (from 1 to 64)"), "{}", error.one_line());
    let Err(NoScope::Impossible(error)) = told(&walk, 65, 1) else { panic!("65 CPUs") };
    assert!(error.one_line().contains("at most 64 CPUs"), "{}", error.one_line());
}

#[test]
fn what_is_wrong_with_a_declaration_is_said() {
    let error = |text: &str| Race::new(Source::new("t", text)).expect_err("it is wrong").one_line();
    let columns = error("X86_64 t\nReplicate=P7\n{}\n P0 ;\n movq $1,(x) ;\nexists (x=1)\n");
    assert!(columns.starts_with("t:2:11: unknown column `P7`"), "{columns}");
    let none = error("X86_64 t\nReplicate=\n{}\n P0 ;\n movq $1,(x) ;\nexists (x=1)\n");
    assert!(none.contains("a column is missing"), "{none}");
    for (entries, expected) in [("0", "from 1 to 64"), ("65", "from 1 to 64"), ("many", "expected a number")] {
        let text = WALK.replace("entries=1", &format!("entries={entries}"));
        let said = error(&text);
        assert!(said.contains(expected), "{said}");
    }
    let copies = error(&WALK.replace("copies=entries", "copies=0"));
    assert!(copies.contains("the number 0 is out of range"), "{copies}");
    let overlap =
        error(&WALK.replace("file f = A;", "frame B = 0x1001; file f = A;").replace("entries=1", "entries=2"));
    assert!(overlap.contains("frame A.1 lies there"), "{overlap}");
}

/// Each file of the catalogue that speaks of scopes can be one CPU and one entry larger.
#[test]
fn the_catalogue_keeps_its_promises() {
    let mut larger = 0;
    for entry in races::catalogue::entries() {
        let race = Race::of_catalogue(&entry).unwrap_or_else(|error| panic!("{}", error.one_line()));
        let own = race.scope();
        for next in [scope(own.cpus + 1, own.entries), scope(own.cpus, own.entries + 1)] {
            match race.at(next) {
                Ok(_) => larger += 1,
                Err(NoScope::Cpus { .. } | NoScope::Entries { .. }) => {}
                Err(error) => panic!("{}: {error}", entry.name),
            }
        }
    }
    assert!(larger >= 10, "{larger}");
}
