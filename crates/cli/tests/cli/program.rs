//! The program, as a user starts it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub(crate) const SEED: &str = "pae-zap-refault";

/// Store buffering: the one relaxed outcome of x86.
pub(crate) const SB: &str = r#"X86_64 SB
{
}
 P0         | P1         ;
 movl $1,(x) | movl $1,(y) ;
 movl (y),%eax | movl (x),%eax ;
exists (0:eax=0 /\ 1:eax=0)
"#;

/// So many stores in so many columns that no test will see the end of it.
pub(crate) fn endless() -> String {
    let cpus = 8;
    let row = |cell: &dyn Fn(usize) -> String| (0..cpus).map(cell).collect::<Vec<_>>().join(" | ") + " ;\n";
    let mut text = format!("X86_64 endless\n{{\n}}\n {}", row(&|cpu| format!("P{cpu}")));
    for step in 0..8 {
        text.push_str(&row(&|cpu| format!("movl ${},(x{})", step + 1, (cpu + step) % cpus)));
    }
    text + "exists (x0=1)\n"
}

pub(crate) fn fastgup() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fastgup"));
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    fastgup().args(arguments).output().expect("the program starts")
}

pub(crate) fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is text")
}

pub(crate) fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
        std::fs::write(path, content).expect("a file can be written");
    }
    folder
}

pub(crate) fn as_argument(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// What a search that was asked for one verdict says.
pub(crate) fn one_report(output: &Output) -> Value {
    serde_json::from_str(text(&output.stdout)).expect("one object")
}
