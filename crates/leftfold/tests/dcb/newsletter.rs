//! Opt-in tokens: valid for an hour, once, and for one address.

use leftfold::{Boundary, Event, Model, testing::GivenEvents};
use serde::{Deserialize, Serialize};

const VALID_MINUTES: u32 = 60;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum LetterEvent {
    #[event("ConfirmationAsked")]
    Asked {
        #[tag("address")]
        address: String,
        #[tag("token")]
        token: String,
        minute: u32,
    },
    #[event("AddressConfirmed")]
    Confirmed {
        #[tag("address")]
        address: String,
        #[tag("token")]
        token: String,
    },
}
use LetterEvent::{Asked, Confirmed};

#[derive(Clone, Default)]
struct Token {
    address: &'static str,
    token: &'static str,
    asked: Option<u32>,
    used: bool,
}

impl Model for Token {
    type Event = LetterEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("address", self.address).and_tag("token", self.token)
    }
    fn apply(&mut self, event: &LetterEvent) {
        match event {
            Asked { minute, .. } => self.asked = Some(*minute),
            Confirmed { .. } => self.used = true,
        }
    }
}

fn confirm(it: &Token, minute: u32) -> Result<LetterEvent, &'static str> {
    match it.asked {
        None => Err("no such token for this address"),
        Some(_) if it.used => Err("used already"),
        Some(asked) if minute > asked + VALID_MINUTES => Err("too late"),
        Some(_) => Ok(confirmed(it.address, it.token)),
    }
}

fn token(address: &'static str, token: &'static str) -> Token {
    Token {
        address,
        token,
        ..Token::default()
    }
}
fn asked(address: &str, token: &str) -> LetterEvent {
    Asked {
        address: address.into(),
        token: token.into(),
        minute: 10,
    }
}
fn confirmed(address: &str, token: &str) -> LetterEvent {
    Confirmed {
        address: address.into(),
        token: token.into(),
    }
}

#[test]
fn a_token_confirms_its_own_address_once_and_in_time() {
    let at = |minute| move |it: &Token| confirm(it, minute);
    let mine = || token("ida@example.org", "4711");
    let letter = || asked("ida@example.org", "4711");
    GivenEvents::none()
        .when(mine(), at(11))
        .then_err("no such token for this address");
    GivenEvents::of([asked("ole@example.org", "4711")])
        .when(mine(), at(11))
        .then_err("no such token for this address");
    GivenEvents::of([letter()])
        .when(mine(), at(70))
        .then([confirmed("ida@example.org", "4711")]);
    GivenEvents::of([letter()])
        .when(mine(), at(71))
        .then_err("too late");
    GivenEvents::of([letter(), confirmed("ida@example.org", "4711")])
        .when(mine(), at(11))
        .then_err("used already");
}
