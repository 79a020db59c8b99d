//! The mixed-size files of the catalogue on the processor that runs the tests: whatever it does, the lab must say that it may.
//!
//! Each file is made into a C program that repeats it on two threads. This side reads the file's text by itself. Without an x86-64 processor with two cores, or
//! a C compiler, there is nothing to compare with, and the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use races::catalogue::{Entry, entries};
use races::{MemoryOrder, Options, Race, Source};

/// How often each file is run.
const TIMES: usize = 100_000;

/// The registers that a file may use, as they are called whole and in their low half, and the ones that hold the addresses of its variables.
const REGISTERS: [(&str, &str); 3] = [("rax", "eax"), ("rbx", "ebx"), ("rcx", "ecx")];
const VARIABLES: [(&str, &str); 2] = [("x", "r8"), ("y", "r9")];

/// A file: what its registers and variables begin with, and its instructions.
struct Test {
    initial: BTreeMap<String, u64>,
    columns: Vec<Vec<String>>,
}

impl Test {
    fn read(text: &str) -> Self {
        let (_, rest) = text.split_once('{').expect("an init block");
        let (init, rest) = rest.split_once('}').expect("its end");
        let (table, _) = rest.split_once("exists").expect("a condition");
        let mut initial = BTreeMap::new();
        for (place, value) in init.split(';').filter_map(|one| one.split_once('=')) {
            let place = place.trim().trim_start_matches("uint64_t ").to_owned();
            let number = value
                .trim()
                .strip_prefix("0x")
                .map_or_else(|| value.trim().parse().ok(), |hexadecimal| u64::from_str_radix(hexadecimal, 16).ok());
            initial.insert(place, number.expect("a number"));
        }
        let mut columns: Vec<Vec<String>> = Vec::new();
        for row in table.trim().lines().skip(1) {
            for (cpu, cell) in row.trim_end().trim_end_matches(';').split('|').map(str::trim).enumerate() {
                columns.resize_with(columns.len().max(cpu + 1), Vec::new);
                columns[cpu].extend((!cell.is_empty()).then(|| cell.to_owned()));
            }
        }
        Self { initial, columns }
    }

    fn initially(&self, place: &str) -> u64 {
        self.initial.get(place).copied().unwrap_or(0)
    }

    /// The places of a final state, in order: the registers of the first CPU, of the second, and the variables.
    fn places() -> Vec<String> {
        let registers = (0..2).flat_map(|cpu| REGISTERS.map(|(name, _)| format!("{cpu}:{name}")));
        registers.chain(VARIABLES.map(|(name, _)| name.to_owned())).collect()
    }

    /// A program that runs the file, and prints each final state that it has seen.
    fn program(&self) -> String {
        let mut text = String::from(include_str!("on_hardware.c"));
        for (cpu, column) in self.columns.iter().enumerate() {
            let _ = writeln!(text, "static void run{cpu}(uint64_t *x, uint64_t *y, uint64_t *out) {{");
            let values = REGISTERS.map(|(name, _)| format!("{}UL", self.initially(&format!("{cpu}:{name}"))));
            let _ = writeln!(text, "    register uint64_t a = {}, b = {}, c = {};", values[0], values[1], values[2]);
            let _ = writeln!(text, "    register uint64_t *rx __asm__(\"r8\") = x, *ry __asm__(\"r9\") = y;");
            let mut body = String::new();
            for instruction in column {
                let mut native = instruction.replace('%', "%%");
                for (name, register) in VARIABLES {
                    native = native.replace(&format!("({name})"), &format!("(%%{register})"));
                }
                let _ = write!(body, "\"{native}\\n\" ");
            }
            let _ = writeln!(
                text,
                "    __asm__ volatile({body} : \"+a\"(a), \"+b\"(b), \"+c\"(c) : \"r\"(rx), \"r\"(ry) : \"memory\", \"cc\");"
            );
            let _ = writeln!(text, "    out[0] = a; out[1] = b; out[2] = c;\n}}");
        }
        let _ = writeln!(
            text,
            "int main(void) {{ return repeat({TIMES}, {}UL, {}UL, run0, run1); }}",
            self.initially("x"),
            self.initially("y")
        );
        text
    }
}

/// Every final state that the lab knows under this order: the same places.
fn explored(entry: &Entry, order: MemoryOrder) -> BTreeSet<Vec<u64>> {
    let (before, _) = entry.text.split_once("exists").expect("a condition");
    let mut text = before.replacen('{', "{ uint64_t y; ", 1);
    if before.contains("uint64_t y") {
        text = before.to_owned();
    }
    let _ = writeln!(text, "locations [{};]", Test::places().join("; "));
    let race = Race::new(Source::new("hardware", text.as_str()))
        .unwrap_or_else(|error| panic!("{}\n{text}", error.one_line()));
    let mut finals = BTreeSet::new();
    races::decide(&[race], &Options { memory: Some(order), ..Options::default() }, |report| {
        assert!(report.message.is_none(), "{report:?}");
        let number = |value: &String| {
            value.strip_prefix("0x").map_or_else(|| value.parse().ok(), |digits| u64::from_str_radix(digits, 16).ok())
        };
        for state in &report.finals {
            let of_place = |place: &String| {
                let found = state.values.iter().find(|(name, _)| name == place);
                found.and_then(|(_, value)| number(value)).unwrap_or_else(|| panic!("{place} in {:?}", state.values))
            };
            finals.insert(Test::places().iter().map(of_place).collect());
        }
    });
    finals
}

/// Every final state that the processor has shown, or why it cannot be asked.
fn seen(test: &Test, folder: &Path) -> Result<BTreeSet<Vec<u64>>, String> {
    let (source, program) = (folder.join("test.c"), folder.join("test"));
    fs::write(&source, test.program()).map_err(|error| error.to_string())?;
    let compiled = Command::new("cc").args(["-O1", "-w", "-pthread", "-o"]).args([&program, &source]).output();
    let compiled = compiled.map_err(|error| format!("no C compiler `cc`: {error}"))?;
    assert!(compiled.status.success(), "{}\n{}", String::from_utf8_lossy(&compiled.stderr), test.program());
    let output = Command::new(&program).output().map_err(|error| error.to_string())?;
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(lines.lines().map(|line| line.split(' ').map(|word| word.parse().expect("a number")).collect()).collect())
}

#[test]
fn the_processor_does_nothing_that_the_lab_forbids() {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) || cores < 2 {
        println!("skipped: needs Linux on an x86-64 processor with two cores");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("on_hardware");
    fs::create_dir_all(&folder).expect("a folder of the build can be made");
    let (mut files, mut beyond_sc) = (0, 0);
    for entry in entries().filter(|entry| entry.folder == "x86" && entry.name.starts_with("mixed-")) {
        let test = Test::read(entry.text);
        assert_eq!(test.columns.len(), 2, "{}", entry.name);
        let seen = match seen(&test, &folder) {
            Ok(seen) => seen,
            Err(why) => {
                println!("skipped: {why}");
                return;
            }
        };
        let [sc, tso] = [MemoryOrder::Sc, MemoryOrder::Tso].map(|order| explored(&entry, order));
        let forbidden: Vec<_> = seen.difference(&tso).collect();
        assert!(forbidden.is_empty(), "{}: {:?} was seen to be {forbidden:?}", entry.name, Test::places());
        println!(
            "{}: {} of {} final states seen, {} of them not sequentially consistent",
            entry.name,
            seen.len(),
            tso.len(),
            seen.difference(&sc).count()
        );
        files += 1;
        beyond_sc += seen.difference(&sc).count();
    }
    assert!(files > 10, "{files} files");
    println!("{files} files; {beyond_sc} final states that only a store buffer explains");
}
