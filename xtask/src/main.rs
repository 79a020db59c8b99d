//! Sets up and runs what fastgup needs.

fn main() {}
