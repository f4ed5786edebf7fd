//! Rules of consumers: claims, terms, checkpoints.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.
//! **Invariants:** a claim of no duration has run out when it is given, so no rule waits for a clock.

use std::{sync::Arc, time::Duration};

use leftfold_model::{Position, Timestamp};

use super::Fixture;
use crate::consumers::{
    CHANGES_BYTES_MAX, CHANGES_MAX, Claim, ClaimRequest, ConsumerChange, ConsumerError,
    ConsumerName, Consumers, HOLDER_BYTES_MAX, ListParked, ParkedEvent, REASON_BYTES_MAX,
    Resolution, TIMER_DATA_BYTES_MAX, TIMER_ID_BYTES_MAX, TTL_MAX, Timer,
};

pub(super) const LONG: Duration = Duration::from_secs(3_600);

pub(super) fn name(text: &str) -> ConsumerName {
    ConsumerName::new(text).unwrap()
}

pub(super) fn position(number: u64) -> Position {
    Position::new(number)
}

pub(super) async fn consumers(fixture: &impl Fixture) -> Arc<dyn Consumers> {
    fixture.open().await.consumers()
}

pub(super) async fn claim(consumers: &Arc<dyn Consumers>, holder: &str, ttl: Duration) -> Claim {
    let request = ClaimRequest::new(name("mailer"), holder, ttl);
    consumers.claim(&request).await.unwrap()
}

pub(super) fn parked(at: u64, key: &str) -> ParkedEvent {
    ParkedEvent {
        position: position(at),
        key: key.into(),
        reason: format!("refused, \u{1f4a5} {at}"),
        attempts: 3,
        time: Timestamp::from_micros(1_000 + at),
        resolution: None,
    }
}

pub(super) fn timer(id: &str, due: u64) -> Timer {
    Timer {
        id: id.into(),
        due: Timestamp::from_micros(due),
        data: vec![0, 255, b'x'].into(),
    }
}

pub(super) async fn all_parked(consumers: &Arc<dyn Consumers>) -> Vec<ParkedEvent> {
    let list = ListParked::default();
    consumers.parked(&name("mailer"), &list).await.unwrap()
}

pub(super) async fn due(consumers: &Arc<dyn Consumers>, now: u64) -> Vec<String> {
    let now = Timestamp::from_micros(now);
    let due = consumers.due_timers(&name("mailer"), now, 10).await;
    due.unwrap().into_iter().map(|timer| timer.id).collect()
}

pub(super) async fn checkpoint(consumers: &Arc<dyn Consumers>) -> Position {
    let status = consumers.status(&name("mailer")).await.unwrap();
    status.unwrap().position
}

pub async fn a_new_consumer_starts_where_it_says_and_a_known_one_where_it_is(
    fixture: &impl Fixture,
) {
    let consumers = consumers(fixture).await;
    assert_eq!(consumers.status(&name("mailer")).await.unwrap(), None);
    let request = ClaimRequest::new(name("mailer"), "a", LONG).start(position(5));
    let mut first = consumers.claim(&request).await.unwrap();
    assert_eq!((first.position, first.term), (position(5), 1));
    consumers
        .advance(&mut first, position(9), Vec::new())
        .await
        .unwrap();
    assert_eq!(first.position, position(9));
    let again = consumers.claim(&request).await.unwrap();
    assert_eq!(again.position, position(9));
}

pub async fn one_holder_at_a_time_has_a_consumer(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    claim(&consumers, "a", LONG).await;
    let request = ClaimRequest::new(name("mailer"), "b", LONG);
    let refused = consumers.claim(&request).await.unwrap_err();
    let ConsumerError::Held {
        consumer,
        holder,
        remaining,
    } = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!((consumer, holder.as_str()), (name("mailer"), "a"));
    assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}");
}

pub async fn a_claim_of_the_present_holder_is_prolonged_and_keeps_its_term(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let short = claim(&consumers, "a", LONG / 10).await;
    let long = claim(&consumers, "a", LONG).await;
    assert_eq!(short, long);
    let status = consumers.status(&name("mailer")).await.unwrap().unwrap();
    let (holder, remaining) = status.holder.unwrap();
    assert!(holder == "a" && remaining > LONG / 2, "{remaining:?}");
    consumers.renew(&long, LONG * 2).await.unwrap();
    let status = consumers.status(&name("mailer")).await.unwrap().unwrap();
    assert!(status.holder.unwrap().1 > LONG);
}

pub async fn each_new_holder_has_a_higher_term(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut terms = Vec::new();
    for holder in ["a", "b", "b", "a"] {
        terms.push(claim(&consumers, holder, Duration::ZERO).await.term);
    }
    assert!(terms.is_sorted_by(|a, b| a < b), "{terms:?}");
}

pub async fn a_released_claim_is_free_at_once(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let a = claim(&consumers, "a", LONG).await;
    consumers.release(&a).await.unwrap();
    let b = claim(&consumers, "b", LONG).await;
    assert!(b.term > a.term);
    // What was lost cannot be released from under its new holder.
    consumers.release(&a).await.unwrap();
    let request = ClaimRequest::new(name("mailer"), "c", LONG);
    assert!(consumers.claim(&request).await.is_err());
}

pub async fn of_many_that_claim_at_once_one_holds(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let claims: Vec<_> = (0..16)
        .map(|nth| {
            let consumers = Arc::clone(&consumers);
            tokio::spawn(async move {
                let request = ClaimRequest::new(name("mailer"), format!("holder-{nth}"), LONG);
                consumers.claim(&request).await
            })
        })
        .collect();
    let mut won = Vec::new();
    for claim in claims {
        match claim.await.unwrap() {
            Ok(claim) => won.push(claim),
            Err(refused) => assert!(matches!(refused, ConsumerError::Held { .. }), "{refused:?}"),
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(won[0].term, 1);
}

pub async fn a_claim_that_ran_out_is_good_until_another_holder_takes_it(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut a = claim(&consumers, "a", Duration::ZERO).await;
    consumers
        .advance(&mut a, position(3), Vec::new())
        .await
        .unwrap();
    consumers.renew(&a, Duration::ZERO).await.unwrap();
    let b = claim(&consumers, "b", LONG).await;
    assert_eq!(b.position, position(3));
    let lost = consumers.renew(&a, LONG).await.unwrap_err();
    let ConsumerError::Lost { term, newest, .. } = lost else {
        panic!("{lost:?}");
    };
    assert_eq!((term, newest), (a.term, b.term));
}

pub async fn a_holder_that_was_overtaken_changes_nothing(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut a = claim(&consumers, "a", Duration::ZERO).await;
    let mut b = claim(&consumers, "b", LONG).await;
    let changes = vec![
        ConsumerChange::Park(parked(1, "k")),
        ConsumerChange::SetTimer(timer("t", 1)),
    ];
    let lost = consumers
        .advance(&mut a, position(4), changes)
        .await
        .unwrap_err();
    assert!(matches!(lost, ConsumerError::Lost { .. }), "{lost:?}");
    assert_eq!(a.position, Position::START);
    assert!(all_parked(&consumers).await.is_empty() && due(&consumers, 9).await.is_empty());
    // To where its successor is, as well.
    consumers
        .advance(&mut b, position(4), Vec::new())
        .await
        .unwrap();
    assert!(
        consumers
            .advance(&mut a, position(4), Vec::new())
            .await
            .is_err()
    );
    assert_eq!(checkpoint(&consumers).await, position(4));
}

pub async fn a_checkpoint_moves_from_the_claimed_position_only(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    let mut copy = claimed.clone();
    consumers
        .advance(&mut claimed, position(6), Vec::new())
        .await
        .unwrap();
    let moved = consumers
        .advance(&mut copy, position(8), Vec::new())
        .await
        .unwrap_err();
    let ConsumerError::Moved {
        expected, actual, ..
    } = moved
    else {
        panic!("{moved:?}");
    };
    assert_eq!((expected, actual), (Position::START, position(6)));
    assert_eq!(checkpoint(&consumers).await, position(6));
}

pub async fn a_repeated_advance_takes_effect_once(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    let mut repeated = claimed.clone();
    let park = vec![ConsumerChange::Park(parked(2, "k"))];
    consumers
        .advance(&mut claimed, position(6), park.clone())
        .await
        .unwrap();
    let unpark = vec![ConsumerChange::Unpark(position(2))];
    consumers
        .advance(&mut claimed, position(6), unpark)
        .await
        .unwrap();
    consumers
        .advance(&mut repeated, position(6), park)
        .await
        .unwrap();
    assert_eq!(repeated.position, position(6));
    assert!(all_parked(&consumers).await.is_empty());
}

pub async fn a_checkpoint_does_not_go_back(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    consumers
        .advance(&mut claimed, position(6), Vec::new())
        .await
        .unwrap();
    let refused = consumers
        .advance(&mut claimed, position(5), Vec::new())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ConsumerError::Invalid { .. }),
        "{refused:?}"
    );
    assert_eq!(checkpoint(&consumers).await, position(6));
}

pub async fn consumers_do_not_influence_each_other(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut mailer = claim(&consumers, "a", LONG).await;
    // One name is the beginning of the other.
    let request = ClaimRequest::new(name("mailer2"), "a", LONG);
    let mut other = consumers.claim(&request).await.unwrap();
    let changes = |at| {
        vec![
            ConsumerChange::Park(parked(at, "k")),
            ConsumerChange::SetTimer(timer("t", at)),
        ]
    };
    consumers
        .advance(&mut mailer, position(4), changes(1))
        .await
        .unwrap();
    consumers
        .advance(&mut other, position(9), changes(2))
        .await
        .unwrap();
    assert_eq!(all_parked(&consumers).await, [parked(1, "k")]);
    consumers.release(&mailer).await.unwrap();
    consumers.remove(&name("mailer")).await.unwrap();
    let status = consumers.status(&name("mailer2")).await.unwrap().unwrap();
    assert_eq!(
        (status.position, status.parked, status.timers),
        (position(9), 1, 1)
    );
    let left = consumers
        .parked(&name("mailer2"), &ListParked::default())
        .await
        .unwrap();
    assert_eq!(left, [parked(2, "k")]);
}

pub async fn a_reset_moves_the_checkpoint_and_ends_the_claim(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mailer = name("mailer");
    let unknown = consumers.reset(&mailer, position(1)).await;
    assert!(
        matches!(unknown, Err(ConsumerError::NotFound { .. })),
        "{unknown:?}"
    );
    let mut claimed = claim(&consumers, "a", LONG).await;
    let changes = vec![
        ConsumerChange::Park(parked(4, "k")),
        ConsumerChange::Park(parked(5, "k")),
        ConsumerChange::SetTimer(timer("t", 1)),
    ];
    consumers
        .advance(&mut claimed, position(8), changes)
        .await
        .unwrap();
    consumers
        .resolve(&mailer, position(5), Resolution::Skip)
        .await
        .unwrap();
    consumers.reset(&mailer, position(4)).await.unwrap();
    let lost = consumers
        .advance(&mut claimed, position(9), Vec::new())
        .await;
    assert!(matches!(lost, Err(ConsumerError::Lost { .. })), "{lost:?}");
    assert_eq!(all_parked(&consumers).await, [parked(4, "k")]);
    assert_eq!(due(&consumers, 1).await, ["t"]);
    let other = claim(&consumers, "b", LONG).await;
    assert!(other.position == position(4) && other.term > claimed.term);
}

pub async fn a_removed_consumer_is_gone_and_its_terms_go_on(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", Duration::ZERO).await;
    let changes = vec![
        ConsumerChange::Park(parked(4, "k")),
        ConsumerChange::SetTimer(timer("t", 1)),
    ];
    consumers
        .advance(&mut claimed, position(8), changes)
        .await
        .unwrap();
    for _ in 0..2 {
        consumers.remove(&name("mailer")).await.unwrap();
        assert_eq!(consumers.status(&name("mailer")).await.unwrap(), None);
    }
    assert!(all_parked(&consumers).await.is_empty() && due(&consumers, 9).await.is_empty());
    let lost = consumers.renew(&claimed, LONG).await;
    assert!(matches!(lost, Err(ConsumerError::Lost { .. })), "{lost:?}");
    let again = claim(&consumers, "a", LONG).await;
    assert!(again.position == Position::START && again.term > claimed.term);
    assert!(
        consumers
            .advance(&mut claimed, position(9), Vec::new())
            .await
            .is_err()
    );
    assert!(all_parked(&consumers).await.is_empty());
}

pub async fn a_held_consumer_is_not_removed(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    claim(&consumers, "a", LONG).await;
    let refused = consumers.remove(&name("mailer")).await;
    assert!(
        matches!(refused, Err(ConsumerError::Held { .. })),
        "{refused:?}"
    );
    assert!(consumers.status(&name("mailer")).await.unwrap().is_some());
}

pub async fn consumers_are_listed_by_name(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    assert!(consumers.list(None).await.unwrap().is_empty());
    for text in ["b", "a2", "\u{e9}", "a"] {
        let request = ClaimRequest::new(name(text), "h", LONG);
        consumers.claim(&request).await.unwrap();
    }
    let names = |listed: Vec<crate::consumers::ConsumerStatus>| -> Vec<_> {
        listed
            .into_iter()
            .map(|s| s.consumer.as_str().to_owned())
            .collect()
    };
    assert_eq!(
        names(consumers.list(None).await.unwrap()),
        ["a", "a2", "b", "\u{e9}"]
    );
    let behind = consumers.list(Some(&name("a1"))).await.unwrap();
    assert_eq!(names(behind), ["a2", "b", "\u{e9}"]);
    let behind = consumers.list(Some(&name("b"))).await.unwrap();
    assert_eq!(names(behind), ["\u{e9}"]);
    let one = consumers.status(&name("a")).await.unwrap().unwrap();
    assert_eq!(one.holder.unwrap().0, "h");
}

pub async fn arguments_beyond_their_limits_are_refused_by_name(fixture: &impl Fixture) {
    for text in [String::new(), "a\nb".into(), "a\0".into(), "n".repeat(256)] {
        let refused = ConsumerName::new(&text).unwrap_err().to_string();
        assert!(
            refused.starts_with("consumer name is not valid: "),
            "{refused}"
        );
    }
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    for (holder, ttl) in [
        (String::new(), LONG),
        ("h".repeat(HOLDER_BYTES_MAX + 1), LONG),
        ("a".into(), TTL_MAX + Duration::from_micros(1)),
    ] {
        let refused = consumers
            .claim(&ClaimRequest::new(name("mailer"), holder, ttl))
            .await;
        assert!(
            matches!(refused, Err(ConsumerError::Invalid { .. })),
            "{refused:?}"
        );
    }
    assert!(consumers.renew(&claimed, TTL_MAX * 2).await.is_err());
    let reason = ParkedEvent {
        reason: "r".repeat(REASON_BYTES_MAX + 1),
        ..parked(1, "k")
    };
    let data = Timer {
        data: vec![0; TIMER_DATA_BYTES_MAX + 1].into(),
        ..timer("t", 1)
    };
    let id = "i".repeat(TIMER_ID_BYTES_MAX + 1);
    let many = vec![ConsumerChange::Unpark(position(1)); CHANGES_MAX + 1];
    let large = (0..=CHANGES_BYTES_MAX / TIMER_DATA_BYTES_MAX).map(|nth| Timer {
        data: vec![0; TIMER_DATA_BYTES_MAX].into(),
        ..timer(&nth.to_string(), 1)
    });
    let large: Vec<_> = large.map(ConsumerChange::SetTimer).collect();
    let fit = ConsumerChange::count_within_limits(&large);
    assert!(fit < large.len() && fit > large.len() / 2, "{fit}");
    for changes in [
        large,
        vec![ConsumerChange::Park(reason)],
        vec![ConsumerChange::SetTimer(data)],
        vec![ConsumerChange::SetTimer(timer("", 1))],
        vec![ConsumerChange::CancelTimer(id)],
        many,
    ] {
        let refused = consumers.advance(&mut claimed, position(1), changes).await;
        assert!(
            matches!(refused, Err(ConsumerError::Invalid { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(checkpoint(&consumers).await, Position::START);
}
