//! What instructions do to registers and memory, one CPU alone: every file claims its only final state.

use races::{MemoryOrder, Options, Race, Source, VariantReport, Verdict};

fn run(text: &str) -> VariantReport {
    let race = Race::new(Source::new("test", text)).unwrap_or_else(|error| panic!("{}\n{text}", error.one_line()));
    let mut reports = Vec::new();
    races::decide(&[race], &Options { memory: Some(MemoryOrder::Tso), ..Options::default() }, |report| {
        reports.push(report)
    });
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

/// One CPU that runs `cells` ends with `claim`.
#[track_caller]
fn ends(init: &str, cells: &str, claim: &str) {
    let text = format!("X86_64 t\n{{ {init} }}\nP0;\n{};\nforall ({claim})\n", cells.replace('\n', ";\n"));
    let report = run(&text);
    assert_eq!(report.verdict, Verdict::Safe, "{:?} {:?}\n{text}", report.finals, report.message);
    assert_eq!(report.final_states, Some(1), "{text}");
}

#[test]
fn parts_of_registers() {
    ends("0:rax=-1", "movl $1,%eax", "0:rax=1");
    ends("0:rax=-1", "movw $1,%ax", "0:rax=0xffffffffffff0001");
    ends("0:rax=-1", "movb $1,%al", "0:rax=0xffffffffffffff01 /\\ 0:al=1 /\\ 0:ah=0xff");
    ends("0:rax=-1", "movb $1,%ah", "0:rax=0xffffffffffff01ff /\\ 0:eax=0xffff01ff /\\ 0:ax=0x01ff");
    ends("0:rsi=0x1234", "movb %sil,%r9b\nmovl %r9d,%edi", "0:rdi=0x34 /\\ 0:r9d=0x34");
    ends("0:eax=-1", "nop", "0:rax=0xffffffff");
    // A register that is declared narrower is looked at as narrow as that.
    ends("int 0:rax; uint64_t x=0xfffffffff", "movq (x),%rax", "0:rax=-1");
    ends("uint64_t x=0xfffffffff", "movq (x),%rax", "~0:rax=-1 /\\ 0:eax=-1");
}

#[test]
fn memory_operands() {
    ends(
        "int64_t t[3]={1,-2,3}; 0:rax=t; 0:rbx=1",
        "movq 8(%rax,%rbx,8),%rcx\nmovq -8(%rax,%rbx,8),%rdx",
        "0:rcx=3 /\\ 0:rdx=1",
    );
    ends(
        "int32_t t[4]={1,2,3,4}",
        "movq 8(t),%rax\nmovl t+4,%ebx\nmovl t+12(%rip),%ecx",
        "0:rax=0x400000003 /\\ 0:rbx=2 /\\ 0:rcx=4",
    );
    ends("uint64_t x=5; uint64_t p=x", "movq (p),%rax\nmovq (%rax),%rbx", "0:rbx=5 /\\ 0:rax=x");
    ends("uint64_t x=5", "lea x+4,%rax\nmovl $7,(%rax)", "x=0x700000005 /\\ 0:rax=x+4");
    ends("uint64_t x=5", "movq $x,%rax\nincq (%rax)", "x=6");
    ends("int x; int y=x", "movl (y),%eax", "0:rax=x");
    ends("int32_t t[2]={7,8}", "movl 4(t),%eax\nmovl %eax,(t)", "t[0]=8 /\\ t[1]=8");
    ends("", "movl $-1,(x)", "x=-1");
    ends("", "movq $-1,(x)", "x=-1 /\\ x=0xffffffffffffffff");
    ends("int x=-5", "movl (x),%eax", "x=-5 /\\ 0:eax=-5 /\\ 0:rax=0xfffffffb");
}

#[test]
fn small_variables() {
    ends("uint8_t f; uint8_t g=0xfe", "movb $0x7f,(f)\nincb (g)\nmovb (f),%al", "f=0x7f /\\ g=0xff /\\ 0:al=0x7f");
    ends("uint16_t h=0xffff", "incw (h)\nsete %al\nmovw $5,(h)\nlock xaddw %bx,(h)", "h=5 /\\ 0:al=1 /\\ 0:bx=5");
    ends(
        "uint64_t x=0x1122334455667788",
        "movb 5(x),%al\nmovw 2(x),%bx\nlock addb $1,1(x)\nxchgb %cl,7(x)",
        "0:al=0x33 /\\ 0:bx=0x5566 /\\ x=0x0022334455667888 /\\ 0:cl=0x11",
    );
    ends("uint8_t x=1; 0:rbx=2", "lock cmpxchgb %bl,(x)\nxchgb %bl,(x)\nlock notb (x)", "0:al=1 /\\ 0:bl=1 /\\ x=0xfd");
}

#[test]
fn read_modify_writes() {
    for lock in ["", "lock "] {
        let cell = |text: &str| text.replace('!', lock);
        ends("uint64_t x=5", &cell("!addq $3,(x)\n!subq $1,(x)\n!incq (x)\n!decq (x)"), "x=7");
        ends("uint64_t x=6", &cell("!andq $3,(x)\n!orq $8,(x)\n!xorq $1,(x)"), "x=11");
        ends("int x=6; int y=1", &cell("!negl (x)\nsets %al\n!notl (y)"), "x=-6 /\\ y=-2 /\\ 0:al=1");
        ends(
            "int x=6; int y=3; int z=9",
            &cell("!andl $3,(x)\n!orl $8,(y)\n!xorl $1,(z)\n!subl $2,(z)"),
            "x=2 /\\ y=11 /\\ z=6",
        );
        ends("uint64_t x=5; 0:rax=2", &cell("!xaddq %rax,(x)"), "x=7 /\\ 0:rax=5");
        ends("int x=5; 0:rax=-1", &cell("!xaddl %eax,(x)"), "x=4 /\\ 0:rax=5");
        ends("uint64_t x=5; 0:rax=5; 0:rbx=9", &cell("!cmpxchgq %rbx,(x)\nsete %cl"), "x=9 /\\ 0:rax=5 /\\ 0:cl=1");
        ends("uint64_t x=5; 0:rax=4; 0:rbx=9", &cell("!cmpxchgq %rbx,(x)\nsete %cl"), "x=5 /\\ 0:rax=5 /\\ 0:cl=0");
        ends("uint64_t x=5; 0:rax=4; 0:rbx=9", &cell("!cmpxchgq (x),%rbx"), "x=5 /\\ 0:rax=5");
        ends("int x=5; 0:rax=0xf00000005; 0:rbx=9", &cell("!cmpxchgl %ebx,(x)"), "x=9 /\\ 0:rax=0xf00000005");
        ends(
            "uint64_t x=4",
            &cell("!btsq $2,(x)\nsetc %al\n!btsq $3,(x)\nsetc %bl\n!btrq $2,(x)\n!btcq $0,(x)"),
            "x=9 /\\ 0:al=1 /\\ 0:bl=0",
        );
        ends("int x=4", &cell("!btsl $3,(x)\n!btrl $2,(x)\n!btcl $31,(x)"), "x=0x80000008");
        ends(
            "int32_t t[4]; 0:rax=70",
            &cell("!btsl %eax,(t)\nbtl %eax,(t)\nsetc %bl"),
            "t[2]=64 /\\ t[0]=0 /\\ 0:bl=1",
        );
    }
    ends("uint64_t x=5; 0:rax=7", "xchgq %rax,(x)", "x=7 /\\ 0:rax=5");
    ends("int x=5; 0:rax=-1", "xchgl (x),%eax", "x=-1 /\\ 0:rax=5");
    ends("0:rax=1; 0:rbx=2", "xchgq %rax,%rbx\nxaddq %rax,%rbx", "0:rax=1 /\\ 0:rbx=3");
    ends("0:rax=3", "xaddq %rax,%rax", "0:rax=6");
    ends("0:rax=3; 0:rbx=3; 0:rcx=9", "cmpxchgq %rcx,%rbx\ncmpxchgq %rax,%rcx", "0:rbx=9 /\\ 0:rax=9 /\\ 0:rcx=9");
    ends("uint64_t x=6", "shlq $2,(x)\nmovb $1,%cl\nshrq %cl,(x)\nmovq (x),%rax\nsarq $1,%rax", "x=12 /\\ 0:rax=6");
}

#[test]
fn jumps_and_conditions() {
    ends("0:rcx=5", "L: incq %rax\ndecq %rcx\njne L", "0:rax=5 /\\ 0:rcx=0");
    ends("0:rax=1", "jmp END\nmovq $2,%rax\nEND:", "0:rax=1");
    ends("", "jmp B\nA:\nmovq $1,%rax\nB:\nmovq $2,%rbx", "0:rax=0 /\\ 0:rbx=2");
    ends("0:rax=1", "ret\nmovq $2,%rax", "0:rax=1");
    ends(
        "0:rax=-1",
        "cmpq $1,%rax\nsetl %bl\nseta %cl\njg END\nmovq $7,%rdx\nEND: nop",
        "0:bl=1 /\\ 0:cl=1 /\\ 0:rdx=7",
    );
    ends(
        "0:rbx=9; 0:rax=-1; 0:rdx=-1",
        "testq %rcx,%rcx\ncmovzq %rbx,%rax\ncmovnzl %ebx,%edx",
        "0:rax=9 /\\ 0:rdx=0xffffffff",
    );
    ends("int x=3", "cmpl $3,(x)\njne END\nmovl $4,(x)\nEND:", "x=4");
    // `inc` leaves the carry that `add` set.
    ends("0:rax=-1", "addq $1,%rax\nincq %rbx\nsetc %cl", "0:cl=1");
}

#[test]
fn what_goes_wrong_while_running_is_a_violation_with_the_instruction() {
    let message = |init: &str, cell: &str| {
        let report = run(&format!("X86_64 t\n{{ {init} }}\nP0;\n{cell};\nexists true\n"));
        assert_eq!((report.verdict, report.rule.as_deref()), (Verdict::Violation, Some("user")));
        report.message.expect("a sentence")
    };
    assert!(message("", "movq (%rax),%rbx").contains("`movq (%rax),%rbx` accesses 0x0: no variable is there"));
    assert!(message("int x; 0:rax=x", "movq (%rax),%rbx").contains("x has 4 bytes"));
    assert!(message("uint64_t x; 0:rax=x+1", "movl (%rax),%ebx").contains("at a multiple of 4"));
    assert!(message("uint64_t x; 0:rax=x", "movb $1,(%rax)").contains("stores part of a word"));
    assert!(message("", "L: jmp L").contains("the loop around `jmp L` accesses no memory"));
}
