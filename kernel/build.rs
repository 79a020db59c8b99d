//! Chooses the linker script, which says where the image lies.

fn main() {
    let pointer = std::env::var("CARGO_CFG_TARGET_POINTER_WIDTH").unwrap_or_default();
    let script = if pointer == "32" { "link32.ld" } else { "link64.ld" };
    let directory = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rustc-link-arg=-T{directory}/src/arch/x86/{script}");
    println!("cargo::rerun-if-changed=src/arch/x86/{script}");
}
