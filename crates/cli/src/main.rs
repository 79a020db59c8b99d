//! Decides whether an interleaving can happen.

fn main() {}
