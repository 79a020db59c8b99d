//! Side-by-side benchmarks against other page-table crates.
