//! Invoice numbers without a gap, though many issue invoices at once.
//!
//! In memory: `cargo run -p leftfold --example invoice_numbers`. In a directory: add `-- data`.

use std::{env, error::Error};

use leftfold::{Boundary, Event, Model, Store};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum BillingEvent {
    #[event("InvoiceIssued")]
    Issued {
        #[tag("invoice")]
        number: u64,
        customer: String,
    },
}
use BillingEvent::Issued;

/// The number of the last invoice.
#[derive(Clone)]
struct LastNumber(u64);

impl Model for LastNumber {
    type Event = BillingEvent;

    fn boundary(&self) -> Boundary {
        Boundary::types(["InvoiceIssued"])
    }
    fn apply(&mut self, event: &BillingEvent) {
        let Issued { number, .. } = event;
        self.0 = *number;
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = match env::args().nth(1) {
        Some(directory) => Store::open(directory).await?,
        None => Store::memory(),
    };
    let issuing: Vec<_> = ["ann", "bob", "cem", "dee", "eve", "fay", "gil", "hal"]
        .into_iter()
        .map(|customer| {
            let decision = store.decision(LastNumber(0)).with_attempts(1_000);
            tokio::spawn(async move {
                let issue = |last: &LastNumber| {
                    Ok::<_, String>(Issued {
                        number: last.0 + 1,
                        customer: customer.to_owned(),
                    })
                };
                decision.decide(issue).await
            })
        })
        .collect();
    for task in issuing {
        let committed = task.await??;
        for Issued { number, customer } in committed.events {
            let attempts = committed.attempts;
            println!("invoice {number} for {customer}, at attempt {attempts}");
        }
    }
    store.close().await?;
    Ok(())
}
