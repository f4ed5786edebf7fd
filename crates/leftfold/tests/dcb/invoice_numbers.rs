//! Invoice numbers: each follows the one before it, without a gap.

use leftfold::{Boundary, Event, Model, Store, testing::GivenEvents};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum BillingEvent {
    #[event("InvoiceIssued")]
    Issued {
        #[tag("invoice")]
        number: u32,
        cents: u64,
    },
}
use BillingEvent::Issued;

#[derive(Clone)]
struct LastNumber(u32);

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

fn issue(last: &LastNumber, cents: u64) -> Result<BillingEvent, String> {
    let number = last.0 + 1;
    Ok(Issued { number, cents })
}

fn issued(number: u32) -> BillingEvent {
    Issued { number, cents: 5 }
}

#[test]
fn the_first_invoice_has_number_one_and_each_other_the_next() {
    GivenEvents::none()
        .when(LastNumber(0), |last| issue(last, 5))
        .then([issued(1)]);
    GivenEvents::of([issued(1), issued(2)])
        .when(LastNumber(0), |last| issue(last, 5))
        .then([issued(3)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn numbers_have_no_gap_and_no_double_however_many_invoices_are_issued_at_once() {
    let store = Store::memory();
    let tasks: Vec<_> = (0..50)
        .map(|cents| {
            let decision = store.decision(LastNumber(0)).with_attempts(10_000);
            tokio::spawn(async move {
                let issued = decision.decide(|last| issue(last, cents)).await.unwrap();
                issued.events.first().map(|Issued { number, .. }| *number)
            })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.extend(task.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
}
