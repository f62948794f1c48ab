//! Starts nothing yet.

fn main() {}
