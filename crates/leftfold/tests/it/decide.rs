//! Decisions on models.

use leftfold::{
    Boundary, Event, ExecuteError, LoadError, Model, Store, UpcastEvent, Upcasters,
    model::{Append, EventType, ExpectedRevision, NewEvent, Position, StreamName, Tag},
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(upcast = history)]
enum MoneyEvent {
    #[event("MoneyPaidIn")]
    PaidIn {
        #[tag("account")]
        account: String,
        cents: u64,
    },
    #[event("MoneyPaidOut")]
    PaidOut {
        #[tag("account")]
        account: String,
        cents: u64,
    },
}

fn history() -> Upcasters {
    Upcasters::new().split("GiftReceived", 1, |old| {
        Ok(vec![UpcastEvent::new("MoneyPaidIn", 1, old.data)])
    })
}

#[derive(Clone, Debug)]
struct Balance {
    account: &'static str,
    cents: u64,
    seen: u32,
}

fn balance(account: &'static str) -> Balance {
    Balance {
        account,
        cents: 0,
        seen: 0,
    }
}

impl Model for Balance {
    type Event = MoneyEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("account", self.account)
    }
    fn apply(&mut self, event: &MoneyEvent) {
        self.seen += 1;
        match event {
            MoneyEvent::PaidIn { cents, .. } => self.cents += cents,
            MoneyEvent::PaidOut { cents, .. } => self.cents -= cents,
        }
    }
}

/// How often money was paid out, by anyone.
#[derive(Clone, Debug, Default)]
struct Payouts(u32);

impl Model for Payouts {
    type Event = MoneyEvent;

    fn boundary(&self) -> Boundary {
        Boundary::types(["MoneyPaidOut"])
    }
    fn apply(&mut self, _: &MoneyEvent) {
        self.0 += 1;
    }
}

fn pay_in(account: &str, cents: u64) -> MoneyEvent {
    let account = account.to_owned();
    MoneyEvent::PaidIn { account, cents }
}

fn pay_out(balance: &Balance, cents: u64) -> Result<MoneyEvent, String> {
    if cents > balance.cents {
        return Err(format!("only {}", balance.cents));
    }
    let account = balance.account.to_owned();
    Ok(MoneyEvent::PaidOut { account, cents })
}

async fn paid_in(store: &Store, account: &'static str, cents: u64) {
    let decided = store.decide(balance(account), |_| {
        Ok::<_, String>(pay_in(account, cents))
    });
    decided.await.unwrap();
}

#[tokio::test]
async fn each_model_is_folded_from_its_own_events_of_one_read() {
    let store = Store::memory();
    paid_in(&store, "a", 10).await;
    paid_in(&store, "b", 20).await;
    store.decide(balance("b"), |b| pay_out(b, 5)).await.unwrap();
    let models = (balance("a"), balance("b"), Payouts::default());
    let decided = store
        .decide(models, |(a, b, payouts)| {
            assert_eq!((a.cents, a.seen), (10, 1));
            assert_eq!((b.cents, b.seen), (15, 2));
            assert_eq!(payouts.0, 1);
            pay_out(a, 10)
        })
        .await
        .unwrap();
    assert_eq!(
        (decided.attempts, decided.position),
        (1, Some(Position::new(4)))
    );
    let refused = store
        .decide(balance("a"), |a| pay_out(a, 1))
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, ExecuteError::Rejected(why) if why == "only 0"),
        "{refused:?}"
    );
    let nothing = store
        .decide(balance("a"), |_| Ok::<_, String>(()))
        .await
        .unwrap();
    assert_eq!((nothing.events.len(), nothing.position), (0, None));
}

/// An event that comes while a decision is being taken.
fn meanwhile(store: &Store, event: &MoneyEvent) -> impl Future<Output = ()> + use<> {
    let tags = event.tags().unwrap();
    let new = NewEvent::json(
        EventType::new(event.event_type()).unwrap(),
        event.encode().unwrap().data,
    );
    let append = Append::to(
        StreamName::default_stream(),
        ExpectedRevision::Any,
        vec![new.with_tags(tags).unwrap()],
    );
    let store = store.clone();
    async move {
        store.event_store().append(append.unwrap()).await.unwrap();
    }
}

/// Decides to pay 5 out of account a, while something else happens during the first attempt.
async fn pay_out_while(event: MoneyEvent, void_if: Option<Boundary>) -> u32 {
    let store = Store::memory();
    paid_in(&store, "a", 10).await;
    let mut decision = store.decision(balance("a"));
    if let Some(boundary) = void_if {
        decision = decision.with_consistency_boundary(boundary);
    }
    let mut first = true;
    let decided = decision.decide(|a| {
        if std::mem::take(&mut first) {
            futures_util::FutureExt::now_or_never(meanwhile(&store, &event)).unwrap();
        }
        pay_out(a, 5)
    });
    decided.await.unwrap().attempts
}

#[tokio::test]
async fn only_what_is_within_the_boundary_makes_a_decision_void() {
    let out = |account: &str| MoneyEvent::PaidOut {
        account: account.into(),
        cents: 1,
    };
    assert_eq!(
        pay_out_while(pay_in("b", 1), None).await,
        1,
        "another account"
    );
    assert_eq!(
        pay_out_while(pay_in("a", 1), None).await,
        2,
        "the same account"
    );
    let payouts = || Some(Boundary::tag("account", "a").of_types(["MoneyPaidOut"]));
    assert_eq!(
        pay_out_while(pay_in("a", 1), payouts()).await,
        1,
        "a deposit blocks no withdrawal"
    );
    assert_eq!(
        pay_out_while(out("a"), payouts()).await,
        2,
        "a withdrawal does"
    );
}

#[tokio::test]
async fn old_events_that_become_newer_ones_are_within_the_boundary_too() {
    let store = Store::memory();
    let gift = NewEvent::json(
        EventType::new("GiftReceived").unwrap(),
        r#"{"account":"a","cents":3}"#,
    );
    let gift = gift.with_tags([Tag::new("account:a").unwrap()]).unwrap();
    let append = Append::to(
        StreamName::default_stream(),
        ExpectedRevision::Any,
        vec![gift],
    )
    .unwrap();
    store.event_store().append(append).await.unwrap();
    store.decide(balance("a"), |a| pay_out(a, 3)).await.unwrap();
}

#[derive(Clone)]
struct Mistaken(Boundary);

impl Model for Mistaken {
    type Event = MoneyEvent;

    fn boundary(&self) -> Boundary {
        self.0.clone()
    }
    fn apply(&mut self, _: &MoneyEvent) {}
}

#[tokio::test]
async fn a_boundary_that_makes_no_sense_is_an_error_and_nothing_is_written() {
    let store = Store::memory();
    let long = "x".repeat(300);
    for (boundary, says) in [
        (Boundary::types(["MoneyPaidOutt"]), "MoneyPaidOutt"),
        (Boundary::tag("account", &long), "TAG_BYTES_MAX"),
        (Boundary::default(), "QUERY_ITEMS_MAX"),
    ] {
        let decided = store.decide(Mistaken(boundary), |_| Ok::<_, String>(pay_in("a", 1)));
        let error = decided.await.unwrap_err();
        let ExecuteError::Load(LoadError::Boundary(boundary)) = &error else {
            panic!("{error:?}")
        };
        let source = std::error::Error::source(boundary).map(ToString::to_string);
        let text = format!("{boundary} {}", source.unwrap_or_default());
        assert!(text.contains(says), "{text}");
    }
    assert_eq!(store.event_store().head().await.unwrap(), Position::START);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_decisions_at_once_none_rests_on_what_is_no_longer_so() {
    let store = Store::memory();
    paid_in(&store, "a", 10).await;
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let decision = store.decision(balance("a")).with_attempts(10_000);
            tokio::spawn(async move { decision.decide(|a| pay_out(a, 1)).await })
        })
        .collect();
    let mut paid = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => paid += 1,
            Err(ExecuteError::Rejected(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(paid, 10);
}

#[tokio::test]
async fn a_decision_with_a_key_is_taken_once_and_its_events_stand_where_told() {
    let store = Store::memory();
    let stream = StreamName::new("money").unwrap();
    let decision = store
        .decision(balance("a"))
        .with_idempotency_key("pay", "k")
        .with_stream(stream.clone());
    let first = decision
        .decide(|_| Ok::<_, String>(pay_in("a", 1)))
        .await
        .unwrap();
    let again = decision
        .decide(|_| Ok::<_, String>(pay_in("a", 1)))
        .await
        .unwrap();
    assert!(again.repeated && !first.repeated);
    assert_eq!(again.events, first.events);
    let list = leftfold::stores::ListStreams::default();
    let mut streams = store.event_store().streams(list);
    let found = futures_util::StreamExt::next(&mut streams)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.len(), &found[0].stream, found[0].events),
        (1, &stream, 1)
    );
}
