//! The fixtures themselves: what they accept, and what they say when they do not.

use std::panic::{UnwindSafe, catch_unwind};

use leftfold::{
    Boundary, Event, Model,
    testing::{Given, GivenEvents},
};
use serde::{Deserialize, Serialize};

use crate::account::{AccountEvent, BankAccount, InsufficientFunds};

use AccountEvent::{DepositMade, WithdrawalMade};

fn given() -> Given<BankAccount> {
    Given::events([DepositMade { amount: 100 }])
}

fn failure(test: impl FnOnce() + UnwindSafe) -> String {
    match catch_unwind(test) {
        Ok(()) => "the expectation was met".to_owned(),
        Err(payload) => payload.downcast_ref::<String>().unwrap().clone(),
    }
}

#[test]
fn expectations_that_are_met_pass() {
    given()
        .when(|account| account.withdraw(30))
        .then([WithdrawalMade { amount: 30 }])
        .then_state(BankAccount { balance: 70 });
    given()
        .when(|account| account.withdraw(150))
        .then_err(InsufficientFunds {
            balance: 100,
            requested: 150,
        })
        .then_state(BankAccount { balance: 100 });
    given().when(|_| Ok::<_, String>(())).then_nothing();
    given()
        .and([WithdrawalMade { amount: 1 }])
        .then_state(BankAccount { balance: 99 });
}

#[test]
fn a_failed_expectation_shows_both_sides_and_marks_what_differs() {
    let text = failure(|| {
        given()
            .when(|account| account.withdraw(30))
            .then([WithdrawalMade { amount: 40 }]);
    });
    assert_eq!(
        text,
        "events differ (- expected, + found)\n  [\n      WithdrawalMade {\n\
         -         amount: 40,\n+         amount: 30,\n      },\n  ]\n"
    );
    let text = failure(|| {
        given().when(|account| account.withdraw(500)).then_nothing();
    });
    assert!(
        text.contains("but it was refused") && text.contains("requested: 500"),
        "{text}"
    );
    let text = failure(|| {
        given()
            .when(|account| account.withdraw(1))
            .then_err(InsufficientFunds {
                balance: 100,
                requested: 1,
            });
    });
    assert!(text.contains("but it was allowed, with"), "{text}");
    let text = failure(|| given().then_state(BankAccount { balance: 1 }));
    assert!(
        text.contains("- ") && text.contains("balance: 1,"),
        "{text}"
    );
}

#[test]
fn an_event_that_cannot_be_applied_is_a_failure_that_names_it() {
    let text = failure(|| {
        let _ = given().and([WithdrawalMade { amount: 101 }]);
    });
    assert!(
        text.contains("WithdrawalMade") && text.contains("overflow"),
        "{text}"
    );
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
enum Lossy {
    #[event("Lossy")]
    Lossy {
        #[serde(skip)]
        lost: u32,
        #[serde(serialize_with = "refuse")]
        odd: u32,
    },
}

fn refuse<S: serde::Serializer>(odd: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    match odd % 2 {
        0 => serializer.serialize_u32(*odd),
        _ => Err(serde::ser::Error::custom("an odd number")),
    }
}

#[derive(Clone)]
struct Sum(u32);

impl Model for Sum {
    type Event = Lossy;

    fn boundary(&self) -> Boundary {
        Boundary::types(["Lossy"])
    }
    fn apply(&mut self, event: &Lossy) {
        let Lossy::Lossy { lost, odd } = event;
        self.0 += lost + odd;
    }
}

#[test]
fn events_pass_through_their_stored_form() {
    let lossy = |lost, odd| Lossy::Lossy { lost, odd };
    let _ = GivenEvents::of([lossy(5, 2)]).when(Sum(0), |sum| {
        assert_eq!(sum.0, 2, "what is not stored does not come back");
        Ok::<_, String>(())
    });
    let text = failure(|| {
        let _ = GivenEvents::of([Lossy::Lossy { lost: 0, odd: 1 }])
            .when(Sum(0), |_| Ok::<_, String>(()));
    });
    assert!(
        text.contains("cannot be encoded") && text.contains("an odd number"),
        "{text}"
    );
}
