//! An event that would come back as another.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, leftfold::Event)]
enum ProfileEvent {
    #[event("NameChanged")]
    NameChanged { name: Option<Option<String>> },
}

fn main() {}
