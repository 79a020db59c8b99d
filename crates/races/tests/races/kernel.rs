//! What files of operations can say of a machine: address spaces, contents, results.

use races::{MemoryOrder, Options, Race, Source, VariantReport, Verdict};

fn decide(text: &str) -> VariantReport {
    let race =
        Race::new(Source::new("test.litmus", text)).unwrap_or_else(|error| panic!("{}\n{text}", error.one_line()));
    let mut reports = Vec::new();
    races::decide(&[race], &Options::default(), |report| reports.push(report));
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.remove(0)
}

/// The final states of a file, each as its values in order.
#[track_caller]
fn finals(text: &str) -> Vec<Vec<String>> {
    let report = decide(text);
    assert_eq!(report.verdict, Verdict::Safe, "{:?} {:?}", report.rule, report.message);
    report.finals.iter().map(|state| state.values.iter().map(|(_, value)| value.clone()).collect()).collect()
}

fn wrong(text: &str) -> String {
    match Race::new(Source::new("test.litmus", text)) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.one_line(),
    }
}

#[test]
fn a_load_gets_what_was_stored_to_the_frame() {
    let text = "MM_X86_64 t\n{ frame A = 0x1000 holds=5; file f = A; area x file=f; mapped x write; }\n\
                P0 ;\n r0 = touch(x) ;\n touch(x+8, write=7) ;\n r1 = touch(x) ;\nlocations [0:r0; 0:r1; A;]\n";
    assert_eq!(finals(text), [["5", "7", "7"]]);
}

#[test]
fn two_spaces_share_a_page_of_a_file() {
    let text = |memory: &str| {
        format!(
            "MM_PAE t\n{{ memory={memory}; tables=24; frame A = 0x1000; frame B = 0x1001; file f = A B;\n\
             space p; space q cpus=1;\n\
             area x file=f; area y file=f offset=1 at=0x40001000; mapped x write; mapped y write;\n\
             area v file=f space=q at=0x80000000; area w file=f space=q offset=1 at=0x80001000; mapped v write; mapped w write; }}\n\
             P0 | P1 ;\n touch(x, write=1) | touch(w, write=1) ;\n r = touch(y) | r = touch(v) ;\n\
             exists (0:r=0 /\\ 1:r=0)\n"
        )
    };
    assert_eq!(finals(&text("sc")).len(), 3);
    assert_eq!(finals(&text("tso")).len(), 4, "user stores are buffered");
}

#[test]
fn spaces_have_tables_of_their_own() {
    // The same address means another page in the other space; unmapping one leaves the other alone.
    let text = "MM_X86_64 t\n{ frame A = 0x1000 holds=1; frame B = 0x1001 holds=2; file f = A; file g = B; space p; space q cpus=1;\n\
                area x file=f; area y file=g space=q; }\n\
                P0 | P1 ;\n r0 = touch(x) | r0 = touch(x) ;\n munmap(y, space=q) | ;\n r1 = touch(y) | r1 = touch(y) ;\n\
                locations [0:r0; 1:r0; 0:r1; 1:r1;]\n";
    let mut seen = finals(text);
    seen.sort();
    assert_eq!(seen, [["1", "2", "1", "2"], ["1", "2", "1", "fault"], ["1", "fault", "1", "fault"]]);
}

#[test]
fn a_register_says_whether_an_operation_was_done() {
    let text = "MM_X86_64 t\n{ frame A = 0x1000; file f = A; area x file=f later; }\n\
                P0 | P1 ;\n r = mmap(x) | r = mmap(x) ;\nlocations [0:r; 1:r;]\n";
    assert_eq!(finals(text), [["0", "1"], ["1", "0"]]);
    let report = decide(&text.replace("r = ", "").replace("locations [0:r; 1:r;]", ""));
    assert_eq!(report.rule.as_deref(), Some("user"));
}

#[test]
fn a_harvest_says_whether_a_page_was_used() {
    let text = "MM_X86_64 t\n{ frame A = 0x1000; file f = A; area x file=f rights=rw; mapped x; }\n\
                P0 ;\n r0 = harvest(x, dirty) ;\n touch(x, write) ;\n r1 = harvest(x, dirty) ;\n r2 = harvest(x, dirty) ;\n\
                r3 = enter_lazy() ;\n r4 = leave_lazy() ;\nlocations [0:r0; 0:r1; 0:r2; 0:r3; 0:r4;]\n";
    assert_eq!(finals(text), [["0", "1", "0", "1", "1"]]);
}

#[test]
fn operations_take_part_in_variants() {
    let text = "MM_X86_64 t\n{ frame A = 0x1000; file f = A; area x file=f; }\n\
                P0 ;\n touch(x, write=1, in=one) ;\n touch(x, write=2, in=two|both) ;\n r = touch(x) ;\n\
                variant one => safe\nvariant two => safe\nvariant both => safe\nlocations [0:r;]\n";
    let race = Race::new(Source::new("test.litmus", text)).unwrap_or_else(|error| panic!("{}", error.one_line()));
    let mut seen = Vec::new();
    races::decide(&[race], &Options::default(), |report| seen.push(report.finals[0].values[0].1.clone()));
    assert_eq!(seen, ["1", "2", "2"]);
    assert!(wrong(&text.replace("in=one", "in=three")).contains("unknown variant `three` (known: one, two, both)"));
}

#[test]
fn contents_cost_nothing_where_they_do_not_matter() {
    let with = |touch: &str| {
        decide(&format!(
            "MM_X86_64 t\n{{ frame A = 0x1000; file f = A; area x file=f; }}\nP0 | P1 ;\n {touch} | zap(x) ;\n"
        ))
    };
    assert!(with("touch(x, write)").states < with("touch(x, write=1)").states);
    assert_eq!(with("touch(x, write)").memory, MemoryOrder::Tso);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let with = |init: &str, cell: &str, tail: &str| {
        wrong(&format!(
            "MM_X86_64 t\n{{ frame A = 0x1000; file f = A; {init} area x file=f; }}\nP0 ;\n {cell} ;\n{tail}\n"
        ))
    };
    assert!(with("", "zap(x, space=q)", "").contains("unknown space `q`"));
    assert!(with("space p; space p;", "zap(x)", "").contains("`p` appears twice"));
    assert!(with("space p cpus=0; space q cpus=0;", "zap(x)", "").contains("CPU0 runs in space p already"));
    assert!(with("space p cpus=1;", "zap(x)", "").contains("out of range"));
    assert!(with("frame B = 0x101; space p; space q;", "zap(x)", "").contains("page tables lie there"));
    assert!(with("", "touch(x, space=p)", "").contains("unknown argument `space=`"));
    assert!(with("", "r = release(r)", "").contains("`release` has no result"));
    assert!(
        with("area y file=f later at=0x50000000; mapped y;", "zap(x)", "").contains("area y is not there at the start")
    );
    assert!(with("", "touch(x, write=1|2)", "").contains("one value"));
    assert!(with("", "touch(x)", "exists (B=1)").contains("unknown frame `B`"));
    assert!(with("", "harvest(x)", "").contains("`harvest` asks for nothing"));
    assert!(with("", "leave_lazy()", "").contains("CPU0 is not lazy here"));
    assert!(with("", "enter_lazy(kernel=k)", "").contains("unknown space `k`"));
    for cell in ["touch(x)", "gup(x, pin)", "enter_lazy()"] {
        assert!(with("", &format!("enter_lazy() ;\n {cell}"), "").contains("CPU0 is lazy here"), "{cell}");
    }
    assert!(with("", "enter_lazy(rounds)", "variant v : rounds=2 => ?").contains("not repeated"));
    let spare = with("frame S = 0x2000 spare; file g = S;", "touch(x)", "");
    assert!(spare.contains("frame S is not of the kind of file g"), "{spare}");
}

#[test]
fn a_device_that_mirrors_has_what_it_was_given_until_it_is_told() {
    let text = "MM_X86_64 t\n{ tables=16; frame A = 0x1000 holds=5; file f = A; area x file=f; }\nP0 ;\n\
                r0 = device(x) ;\n mirror(x) ;\n r1 = device(x) ;\n r2 = device(x, write=6) ;\n mirror(x, write) ;\n r3 = device(x, write=7) ;\n\
                r4 = touch(x) ;\n zap(x) ;\n r5 = device(x) ;\nlocations [0:r0; 0:r1; 0:r2; 0:r3; 0:r4; 0:r5;]\n";
    assert_eq!(finals(text), [["fault", "5", "fault", "5", "7", "fault"]]);
}

#[test]
fn a_dump_counts_what_is_mapped() {
    let text = "MM_X86_64 t\n{ tables=16; frame A = 0x1000; frame B = 0x1001; file f = A B; area x file=f pages=2; }\nP0 ;\n\
                r0 = ptdump(x, pages=2) ;\n touch(x+0x1000) ;\n r1 = ptdump(x, pages=2) ;\n touch(x) ;\n r2 = ptdump(x, pages=2) ;\n\
                munmap(x) ;\n r3 = ptdump(x, pages=2) ;\nlocations [0:r0; 0:r1; 0:r2; 0:r3;]\n";
    assert_eq!(finals(text), [["0", "1", "2", "0"]]);
}

#[test]
fn a_stack_grows_by_what_touches_below_it() {
    let text = |stack: &str| {
        format!(
            "MM_X86_64 t\n{{ tables=16; frame A = 0x1000 spare; file f anonymous; area s file=f offset=4 at=0x40200000 {stack};\n\
             area z file=f at=0x401ff000 later; }}\nP0 ;\n r0 = touch(z) ;\nlocations [0:r0;]\n"
        )
    };
    assert_eq!(finals(&text("")), [["fault"]]);
    assert_eq!(finals(&text("stack")), [["0"]]);
}
