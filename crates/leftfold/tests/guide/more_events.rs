//! More about events: the chapter on events.

use leftfold::{
    Aggregate, Event, EventContext, Metadata, UnknownEvent, model::Timestamp, testing::Given,
};
use serde::{Deserialize, Serialize};

use crate::account::AccountEvent;

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(format = "cbor")]
enum CardEvent {
    #[event("CardIssued")]
    Issued {
        #[tag("account")]
        account: String,
        #[tag("card")]
        card: u64,
        #[tag("holder")]
        second_holder: Option<String>,
    },
    #[event("CardBlocked")]
    Blocked,
    #[event(other)]
    Other(UnknownEvent),
}

#[test]
fn fields_give_tags() -> Result<(), Box<dyn std::error::Error>> {
    let issued = CardEvent::Issued {
        account: "7f3".into(),
        card: 4711,
        second_holder: None,
    };
    let tags: Vec<_> = issued.tags()?.iter().map(ToString::to_string).collect();
    assert_eq!(tags, ["account:7f3", "card:4711"]);
    assert_eq!(issued.event_type(), "CardIssued");
    assert_eq!(CardEvent::Blocked.version(), 1);
    Ok(())
}

/// When an account was used last, and by whom.
#[derive(Default, Debug, PartialEq)]
struct LastUse {
    at: Option<Timestamp>,
    by: Option<String>,
}

impl Aggregate for LastUse {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, _: &AccountEvent) {}

    fn apply_with_context(&mut self, _: &AccountEvent, context: &EventContext<'_>) {
        self.at = Some(context.time());
        self.by = context.metadata().actor;
    }
}

#[test]
fn a_state_depends_on_times_and_metadata() {
    let noon = Timestamp::from_micros(43_200_000_000);
    Given::<LastUse>::nothing()
        .at(noon)
        .with_metadata(Metadata::new().actor("ann"))
        .and([AccountEvent::Deposited { cents: 100 }])
        .then_state(LastUse {
            at: Some(noon),
            by: Some("ann".into()),
        });
}
