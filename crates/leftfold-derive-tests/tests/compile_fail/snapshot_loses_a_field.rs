//! A state that would come back from its snapshot as another.

use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize, leftfold::Snapshot)]
struct Account {
    balance: u64,
    #[serde(skip)]
    deposits: u64,
}

#[derive(Default, Serialize, Deserialize, leftfold::Snapshot)]
struct Limit {
    limit: Option<Option<u64>>,
}

fn main() {}
