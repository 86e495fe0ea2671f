//! The admin client as a program.
fn main() {}
