//! Builds the crate again when a file of the catalogue changes: the catalogue is part of it.

fn main() {
    println!("cargo::rerun-if-changed=catalogue");
}
