//! More about events: the chapter on events.

use leftfold::{Event, RawEvent};
use serde::{Deserialize, Serialize};

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
    Other(RawEvent),
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
