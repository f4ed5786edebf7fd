//! The project checks of Leftfold.

fn main() {}
