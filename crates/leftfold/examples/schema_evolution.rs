//! Two programs, one log: the older writes, the newer reads shapes that it no longer has.
//!
//! In memory: `cargo run -p leftfold --example schema_evolution`. In a directory: add `-- data`.

use std::{env, error::Error};

use leftfold::Store;

/// The program of last year.
mod older {
    use leftfold::{Aggregate, Event};
    use serde::{Deserialize, Serialize};

    #[derive(Event, Serialize, Deserialize)]
    pub(crate) enum CustomerEvent {
        #[event("CustomerNamed")]
        Named { name: String },
        #[event("PointsGiven")]
        PointsGiven { points: u32 },
    }

    #[derive(Default)]
    pub(crate) struct Customer;

    impl Aggregate for Customer {
        const CATEGORY: &'static str = "customer";
        type Event = CustomerEvent;

        fn apply(&mut self, _: &CustomerEvent) {}
    }
}

/// The program of today: a name has two parts, and points have a reason.
mod newer {
    use leftfold::{Aggregate, Event, UpcastEvent, Upcasters};
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    #[derive(Event, Serialize, Deserialize)]
    #[event(upcast = history)]
    pub(crate) enum CustomerEvent {
        #[event("FirstNameGiven")]
        FirstName { name: String },
        #[event("FamilyNameGiven")]
        FamilyName { name: String },
        #[event("PointsGiven", version = 2)]
        PointsGiven { points: u32, reason: String },
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an index that is missing in a JSON value is made, or is null"
    )]
    fn history() -> Upcasters {
        Upcasters::new()
            .change("PointsGiven", 1, |data| data["reason"] = "loyalty".into())
            .split("CustomerNamed", 1, |old| {
                let name = old.data["name"].as_str().ok_or("name is not a text")?;
                let (first, family) = name.split_once(' ').unwrap_or((name, ""));
                Ok(vec![
                    UpcastEvent::new("FirstNameGiven", 1, json!({ "name": first })),
                    UpcastEvent::new("FamilyNameGiven", 1, json!({ "name": family })),
                ])
            })
    }

    #[derive(Default, Debug)]
    pub(crate) struct Customer {
        pub(crate) first_name: String,
        pub(crate) family_name: String,
        pub(crate) points: u32,
        pub(crate) reasons: Vec<String>,
    }

    impl Aggregate for Customer {
        const CATEGORY: &'static str = "customer";
        type Event = CustomerEvent;

        fn apply(&mut self, event: &CustomerEvent) {
            match event {
                CustomerEvent::FirstName { name } => self.first_name.clone_from(name),
                CustomerEvent::FamilyName { name } => self.family_name.clone_from(name),
                CustomerEvent::PointsGiven { points, reason } => {
                    self.points += points;
                    self.reasons.push(reason.clone());
                }
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = match env::args().nth(1) {
        Some(directory) => Store::open(directory).await?,
        None => Store::memory(),
    };
    let older = store.repository::<older::Customer>();
    let wrote = |_: &older::Customer| {
        Ok::<_, String>([
            older::CustomerEvent::Named {
                name: "Ada Lovelace".into(),
            },
            older::CustomerEvent::PointsGiven { points: 5 },
        ])
    };
    older.execute("c1", wrote).await?;

    let newer = store.repository::<newer::Customer>();
    let gift = |_: &newer::Customer| {
        Ok::<_, String>(newer::CustomerEvent::PointsGiven {
            points: 2,
            reason: "birthday".into(),
        })
    };
    newer.execute("c1", gift).await?;
    let customer = newer.load("c1").await?;
    println!("{:#?}", customer.state());
    println!("from {} stored events", customer.event_count());

    // The older program does not guess at what it cannot read.
    if let Err(error) = older.load("c1").await {
        println!("the older program: {error}");
    }
    store.close().await?;
    Ok(())
}
