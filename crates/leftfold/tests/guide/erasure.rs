//! A customer who is forgotten: the chapter on personal data.

use leftfold::{Aggregate, Event, FileKeys, Personal, Store};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum CustomerEvent {
    #[event("CustomerRegistered")]
    Registered {
        customer: String,
        #[personal(subject = "customer")]
        email: Personal<String>,
    },
}

#[derive(Default)]
struct Customer {
    email: Option<String>,
}

impl Aggregate for Customer {
    const CATEGORY: &'static str = "customer";
    type Event = CustomerEvent;

    fn apply(&mut self, event: &CustomerEvent) {
        let CustomerEvent::Registered { email, .. } = event;
        self.email = email.get().cloned();
    }
}

/// What a newsletter listens to.
#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
enum NewsletterEvent {
    #[event("SubjectForgotten")]
    Forgotten { subject: String, id: String },
}

#[tokio::test]
async fn a_customer_is_forgotten() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let keys = FileKeys::open(directory.path().join("keys")).await?;
    let store = Store::memory().with_keys(keys);

    let customers = store.repository::<Customer>();
    let register = |_: &Customer| CustomerEvent::Registered {
        customer: "c1".into(),
        email: Personal::new("ann@example.org".into()),
    };
    customers.execute("c1", register).await?;
    let ann = customers.load("c1").await?;
    assert_eq!(ann.state().email.as_deref(), Some("ann@example.org"));

    assert!(store.forget("customer", "c1").await?);
    let forgotten = customers.load("c1").await?;
    assert_eq!(forgotten.state().email, None);
    assert_eq!(forgotten.event_count(), 1);

    let told = store.events::<NewsletterEvent>().collect().await?;
    let NewsletterEvent::Forgotten { id, .. } = &told[0].event;
    assert_eq!(id, "c1");

    let ann = store.pseudonym("customer", "ann@example.org").await?;
    assert_eq!(store.pseudonym("customer", "ann@example.org").await?, ann);
    store.forget("customer", "ann@example.org").await?;
    Ok(())
}
