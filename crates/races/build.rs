//! Builds the crate again when a file of the catalogue changes: the catalogue is part of it. And digests the source of everything that decides how a run
//! goes, so that a saved run can say whether the code is still the same.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The crates whose code runs in the lab, the lab, and the glue. Files of the catalogue are not among them: a saved run has its own.
const CRATES: [&str; 5] = ["machine", "pagetable", "mm", "lab", "races"];

/// What processes that explore together say to each other. No run depends on it.
const BETWEEN_PROCESSES: [&str; 1] = ["cluster"];

fn main() {
    println!("cargo::rerun-if-changed=catalogue");
    println!("cargo::rustc-env=FASTGUP_CODE={}", digest(&CRATES));
    println!("cargo::rustc-env=FASTGUP_CLUSTER={}", digest(&BETWEEN_PROCESSES));
    println!("cargo::rerun-if-changed=build.rs");
}

fn digest(names: &[&str]) -> String {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("crates lie side by side").to_owned();
    let mut digest = Sha256::new();
    for name in names {
        let source = crates.join(name).join("src");
        println!("cargo::rerun-if-changed={}", source.display());
        let mut files = Vec::new();
        rust_files(&source, &mut files);
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).expect("source is text");
            let path = file.strip_prefix(&crates).expect("it was found below").to_string_lossy().replace('\\', "/");
            // Neither where the checkout is nor how its lines end matters.
            let text = text.replace("\r\n", "\n");
            for part in [path.as_bytes(), text.as_bytes()] {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the crates of the workspace lie side by side") {
        let path = entry.expect("a folder can be read to its end").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
