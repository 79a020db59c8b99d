//! What is wrong with a file is said with its place, what was found, and what would be right.

use races::{Error, Problem, Race, Source};

fn error(text: &str) -> Error {
    match Race::new(Source::new("bad.litmus", text)) {
        Ok(race) => panic!("accepted:\n{}", race.litmus),
        Err(error) => error,
    }
}

/// The error of `text` begins at `place` (line:column) and its line contains `words`.
#[track_caller]
fn check(text: &str, place: &str, words: &str) {
    let error = error(text);
    let line = error.one_line();
    assert!(line.starts_with(&format!("bad.litmus:{place}: ")), "at the wrong place: {line}\n{text}");
    assert!(line.contains(words), "does not say {words:?}: {line}\n{text}");
}

/// An x86-64 test with one cell.
fn cell(cell: &str) -> String {
    format!("X86_64 t\n{{ uint64_t x; int y; }}\n P0 ;\n {cell} ;\nexists (x=1)\n")
}

#[test]
fn headings() {
    check("", "1:1", "expected `MODE name`");
    check("X86_65 t\n{}\nP0;\n", "1:1", "unknown mode `X86_65` (did you mean `X86_64`?)");
    check("X86_64\n{}\nP0;\n", "1:1", "the name of the test is missing");
    check("X86_64 t\nhello\n{}\nP0;\n", "2:1", "expected a quoted line, `Key=value`, or the init block");
    check("X86_64 t\n\"never closed\n{}\nP0;\n", "2:1", "this string never ends");
    check("X86_64 t\n(* outer (* inner *)\n{}\nP0;\n", "2:1", "this comment never ends");
    check("X86_64 t\n", "2:1", "found the end of the file");
}

#[test]
fn tables() {
    check("X86_64 t\n{}\n", "3:1", "expected the heading of a column");
    check("X86_64 t\n{}\n P0 | P0 ;\n", "3:7", "column `P0` appears twice");
    check("X86_64 t\n{}\n P0 | P2 ;\n", "3:7", "number the CPUs from 0");
    check("X86_64 t\n{}\n Q0 ;\n", "3:2", "expected the heading of a column");
    check("X86_64 t\n{}\n P0 | P1 ;\n mfence ;\n", "4:2", "this row has 1 columns, the heading has 2");
    check("X86_64 t\n{}\n P0 ;\n mfence | mfence ;\n", "4:2", "this row has 2 columns, the heading has 1");
    check("X86_64 t\n{}\n P0 ;\n mfence\n mfence ;\n", "5:2", "expected `|` or `;`, found `mfence`");
    check("X86_64 t\n{}\n P0 ;\n mfence\n", "5:1", "expected `|` or `;`, found the end of the file");
    check("X86_64 t\n{}\n P0\n mfence ;\n", "4:2", "expected `|` or `;` after the heading");
    let many = (0..65).map(|cpu| format!("P{cpu}")).collect::<Vec<_>>().join("|");
    check(&format!("X86_64 t\n{{}}\n{many};\n"), "3:247", "a machine has at most 64 CPUs");
}

#[test]
fn instructions() {
    check(&cell("mvoq $1,(x)"), "4:2", "unknown instruction `mvoq` (did you mean `movq`?)");
    check(&cell("movq $1 (x)"), "4:10", "expected `,`, `|` or `;`, found `(`");
    check(&cell("movq $1,(x"), "4:13", "expected `)`, found `;`");
    check(&cell("movq $1,%rxx"), "4:11", "unknown register `rxx` (did you mean `rax`?)");
    check(&cell("movq $1,%eax"), "4:10", "an operand of 64 bits cannot be `eax`");
    check(
        &cell("movl $0x100000000,(y)"),
        "4:7",
        "the number 4294967296 is out of range (from -2147483648 to 0xffffffff)",
    );
    check(&cell("movq $99999999999999999999999999999999999999999999,(x)"), "4:8", "out of range");
    check(&cell("movq $0xfg,(x)"), "4:8", "expected a number, found `0xfg`");
    check(&cell("movq (x),(x)"), "4:2", "it takes a source and a destination, at most one of them in memory");
    check(&cell("lock movq $1,(x)"), "4:2", "`lock` stands before read-modify-writes of memory");
    check(&cell("lock addq $1,%rax"), "4:2", "`lock` stands before read-modify-writes of memory");
    check(&cell("jmp L"), "4:6", "unknown label of this CPU `L`");
    check(&cell("L: L: nop"), "4:5", "label `L` appears twice");
    check(&cell("movq 4(%rax,%rbx,3),%rax"), "4:19", "the factor of an index cannot be `3` (1, 2, 4 or 8)");
    check(&cell("movq (%al),%rax"), "4:9", "an address cannot be `al`");
}

#[test]
fn memory() {
    check(&cell("movq $1,(y)"), "4:2", "accesses 8 bytes at y, but y has 4 bytes");
    check(&cell("movq $1,4(x)"), "4:2", "accesses 8 bytes at x+4, but x has 8 bytes");
    check(&cell("movl $1,2(x)"), "4:2", "accesses 4 bytes at x+2, but 4 bytes are accessed at a multiple of 4");
    check(&cell("movl $1,8(x)"), "4:2", "x has 8 bytes");
    check(&cell("movb $1,(x)"), "4:2", "memory is written 4 or 8 bytes at a time");
    check("X86 t\n{}\n P0 ;\n MOV RAX,[x] ;\n", "4:6", "rax on a 32-bit machine (use `X86_64`");
    check("X86 t\n{}\n P0 ;\n MOVQ [x],$1 ;\n", "4:2", "64 bits on a 32-bit machine");
}

#[test]
fn init_blocks() {
    let text = |init: &str| format!("X86_64 t\n{{ {init} }}\n P0 ;\n movq $1,(x) ;\n");
    check(&text("x=1 y=2"), "2:7", "expected `;` or `}`, found `y`");
    check(&text("uint65_t x;"), "2:3", "unknown type `uint65_t` (did you mean `uint64_t`?)");
    check(&text("x=z;"), "2:5", "unknown variable `z`");
    check(&text("int x=0x1_0000_0000;"), "2:9", "out of range");
    check(&text("int x; int x;"), "2:14", "`x` appears twice");
    check(&text("1:rax=1;"), "2:3", "unknown CPU `1` (known: 0)");
    check(&text("0:rxa=1;"), "2:3", "unknown register `rxa`");
    check(&text("0:rax={1,2};"), "2:3", "a register holds one value");
    check(&text("int t[3]={1,2};"), "2:7", "t[3] cannot be `2 values` (it has 3)");
    check(&text("int t[9999];"), "2:7", "from 1 to 1024");
    check(&text("int t[0];"), "2:7", "from 1 to 1024");
    check("X86_64 t\n{ x=1;\n P0 ;\n", "4:1", "expected a variable (`x`) or a register (`0:rax`)");
}

#[test]
fn conditions() {
    let text = |condition: &str| format!("X86_64 t\n{{ uint64_t x; }}\n P0 ;\n movq $1,(x) ;\n{condition}\n");
    check(&text("exists x=1 y"), "5:12", "expected a condition or the end of the file, found `y`");
    check(&text("exists (x=1"), "6:1", "expected `)`");
    check(&text("exists (x)"), "5:10", "expected `=` or `!=`, found `)`");
    check(&text("exists (x=)"), "5:11", "expected a number or a name");
    check(&text("exists (xx=1)"), "5:9", "unknown variable `xx` (known: x)");
    check(&text("exists (3:rax=1)"), "5:9", "unknown CPU `3`");
    check(&text("exists (0:rax=0x10000000000000000)"), "5:15", "out of range");
    check(&text("exists (x[1]=0)"), "5:9", "unknown variable `x[1]`");
    check(&text("~forall x=1"), "5:2", "expected `exists`, found `forall`");
    check(&text("locations [x"), "6:1", "expected `;` or `]`");
    check(&text("variant a => safe"), "5:1", "found `variant`");
    check("X86_64 t\nTSO=Perhaps\n{}\n P0;\n nop;\n", "2:5", "TSO cannot be `Perhaps` (Never, Sometimes, Always)");
    let deep = format!("exists {}x=1{}", "(".repeat(5000), ")".repeat(5000));
    check(&text(&deep), "5:108", "nested deeper than 100 levels");
    for sign in ["~", "x=1 => "] {
        let deep = format!("exists {}x=1", sign.repeat(5000));
        assert!(matches!(error(&text(&deep)).problem(), Problem::TooDeep { .. }), "{sign}");
    }
    let long = format!("exists x=1{}", " /\\ x=1".repeat(50_000));
    Race::new(Source::new("long", text(&long))).expect("long is not deep");
}

#[test]
fn operations() {
    let text = |init: &str, cell: &str, variant: &str| format!("MM_PAE t\n{{ {init} }}\n P0 ;\n {cell} ;\n{variant}\n");
    check(&text("cpus=3", "gup(x)", ""), "2:10", "expected `;` at the end of the statement, found `}`");
    check(&text("cpus=;", "gup(x)", ""), "2:8", "expected a number or a name, found `;`");
    check(&text("frame;", "gup(x)", ""), "2:8", "expected the name of what is declared, found `;`");
    check(&text("", "gup x", ""), "4:6", "expected `(` and the arguments");
    check(&text("", "gup(x", ""), "4:8", "expected `,` or `)`");
    check(&text("", "r0 = 3", ""), "4:7", "expected an operation after `=`");
    check(&text("", "gup(x+)", ""), "4:8", "expected a number of bytes");
    check(&text("", "gup(x)", "variant a safe"), "5:11", "expected `key=value`, or `=>`");
    check(&text("", "gup(x)", "variant a => "), "6:1", "expected `safe`, `?` or the name of a rule");
    check(&text("", "gup(x)", "variant a => safe\nvariant a => safe"), "6:9", "variant `a` appears twice");
    check(&text("", "gup(x)", "variant a => safe \"why"), "5:19", "this string never ends");
    check(&text("", "gup(x)", "variant a => safe | user"), "5:19", "found `|`");
    check(
        &text("", "gup(x)", "variant a => user | lost-cuont"),
        "5:21",
        "unknown rule `lost-cuont` (did you mean `lost-count`?)",
    );
    check(&text("memory=pso;", "gup(x)", ""), "2:10", "memory cannot be `pso` (sc, tso)");
}

#[test]
fn what_is_no_text_or_too_large_is_an_error() {
    let folder = std::env::temp_dir().join(format!("races-errors-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let binary = folder.join("binary.litmus");
    std::fs::write(&binary, [b'X', 0xff, 0xfe, 0x00, b'{']).expect("a temporary file");
    let message = Race::read(&binary).expect_err("no litmus test").to_string();
    assert!(message.contains("unknown mode"), "{message}");

    let large = folder.join("large.litmus");
    std::fs::write(&large, vec![b' '; races::MAX_FILE_BYTES as usize + 7]).expect("a temporary file");
    let message = Race::read(&large).expect_err("too large").to_string();
    assert_eq!(message, format!("the file has {} bytes", races::MAX_FILE_BYTES + 7));

    let missing = Race::find(&folder.join("missing.litmus").display().to_string()).expect_err("no such file");
    assert!(missing.to_string().contains("no file and no race of the catalogue"), "{missing}");
    let found = Race::find_all(&folder.display().to_string());
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(Result::is_err));
    std::fs::remove_dir_all(&folder).expect("the folder is ours");

    let near = Race::find("SB+mfence").expect_err("no such race");
    assert!(format!("{near:?}").contains("did you mean `SB+mfences`?"), "{near:?}");
}

#[test]
fn an_error_is_a_diagnostic_with_source_label_and_help() {
    use miette::Diagnostic as _;
    let error = error(&cell("mvoq $1,(x)"));
    let label = error.labels().and_then(|mut labels| labels.next()).expect("a label");
    assert_eq!((label.offset(), label.len()), (cell("").find(" ;\nexists").expect("a cell"), "mvoq".len()));
    assert!(error.source_code().is_some());
    assert_eq!(error.help().expect("help").to_string(), "did you mean `movq`?");
}

#[test]
fn more_pages_than_the_rules_can_tell_apart() {
    let file = |pages| {
        format!(
            "MM_X86_64 t\n{{ file f anonymous; area x file=f at=0x40000000 pages={pages} private; mapped x pages={pages}; }}\n P0 ;\n touch(x) ;\nvariant v => ?\n"
        )
    };
    assert!(Race::new(Source::new("good.litmus", file(64))).is_ok());
    check(&file(65), "1:11", "the file speaks of 65 pages");
}
