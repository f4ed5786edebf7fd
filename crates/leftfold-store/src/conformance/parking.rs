//! Rules of consumers: parked events and timers.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use leftfold_model::{Position, Timestamp};

use super::{
    Fixture,
    consumers::{
        LONG, all_parked, checkpoint, claim, consumers, due, name, parked, position, timer,
    },
};
use crate::consumers::{
    CHANGES_MAX, ConsumerChange, ConsumerError, KEY_BYTES_MAX, LIST_MAX, ListParked, PARKED_MAX,
    ParkedEvent, REASON_BYTES_MAX, Resolution, TIMER_DATA_BYTES_MAX, TIMER_ID_BYTES_MAX, Timer,
};

pub async fn what_is_parked_comes_back_in_order_and_by_key(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    let events = [
        parked(7, "b"),
        parked(2, "a"),
        parked(300, "a"),
        parked(11, ""),
    ];
    let park = events.iter().cloned().map(ConsumerChange::Park).collect();
    consumers
        .advance(&mut claimed, position(300), park)
        .await
        .unwrap();
    let [seven, two, many, eleven] = events;
    let in_order = [two.clone(), seven.clone(), eleven.clone(), many.clone()];
    assert_eq!(all_parked(&consumers).await, in_order);
    let status = consumers.status(&name("mailer")).await.unwrap().unwrap();
    assert_eq!(status.parked, 4);
    let of_a = ListParked {
        key: Some("a".into()),
        ..ListParked::default()
    };
    assert_eq!(
        consumers.parked(&name("mailer"), &of_a).await.unwrap(),
        [two, many]
    );
    let page = ListParked {
        after: position(2),
        limit: 2,
        ..ListParked::default()
    };
    assert_eq!(
        consumers.parked(&name("mailer"), &page).await.unwrap(),
        [seven, eleven]
    );
}

pub async fn a_refused_advance_parks_nothing_and_sets_no_timer(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    let changes = vec![
        ConsumerChange::Park(parked(1, "k")),
        ConsumerChange::SetTimer(timer("t", 1)),
        ConsumerChange::Park(parked(2, &"k".repeat(KEY_BYTES_MAX + 1))),
    ];
    assert!(
        consumers
            .advance(&mut claimed, position(3), changes)
            .await
            .is_err()
    );
    assert!(all_parked(&consumers).await.is_empty() && due(&consumers, 9).await.is_empty());
    assert_eq!(checkpoint(&consumers).await, Position::START);
}

pub async fn parked_events_are_bounded(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    let short = |at| {
        ConsumerChange::Park(ParkedEvent {
            reason: String::new(),
            ..parked(at, "k")
        })
    };
    let mut next = 1;
    while next <= PARKED_MAX {
        let end = (next + CHANGES_MAX as u64).min(PARKED_MAX + 1);
        let park = (next..end).map(short).collect();
        consumers
            .advance(&mut claimed, position(end - 1), park)
            .await
            .unwrap();
        next = end;
    }
    let beyond = position(PARKED_MAX + 1);
    let full = consumers
        .advance(&mut claimed, beyond, vec![short(PARKED_MAX + 1)])
        .await;
    let Err(ConsumerError::Full { limit, .. }) = full else {
        panic!("{full:?}");
    };
    assert_eq!(limit, PARKED_MAX);
    assert_eq!(checkpoint(&consumers).await, position(PARKED_MAX));
    // What is parked already may be parked again, and one that goes makes room for one that comes.
    let swap = vec![
        short(5),
        short(PARKED_MAX + 1),
        ConsumerChange::Unpark(position(1)),
    ];
    consumers.advance(&mut claimed, beyond, swap).await.unwrap();
    let all = ListParked {
        limit: usize::MAX,
        ..ListParked::default()
    };
    let page = consumers.parked(&name("mailer"), &all).await.unwrap();
    assert_eq!(page.len(), LIST_MAX);
}

pub async fn an_unparked_event_is_gone_and_unparking_none_is_no_error(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    let park = vec![
        ConsumerChange::Park(parked(1, "k")),
        ConsumerChange::Park(parked(2, "k")),
    ];
    consumers
        .advance(&mut claimed, position(2), park)
        .await
        .unwrap();
    let unpark = vec![
        ConsumerChange::Unpark(position(1)),
        ConsumerChange::Unpark(position(77)),
    ];
    consumers
        .advance(&mut claimed, position(2), unpark)
        .await
        .unwrap();
    assert_eq!(all_parked(&consumers).await, [parked(2, "k")]);
    let status = consumers.status(&name("mailer")).await.unwrap().unwrap();
    assert_eq!(status.parked, 1);
}

pub async fn an_operator_says_what_becomes_of_a_parked_event(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mailer = name("mailer");
    let unknown = consumers
        .resolve(&mailer, position(1), Resolution::Skip)
        .await;
    assert!(
        matches!(unknown, Err(ConsumerError::NotFound { .. })),
        "{unknown:?}"
    );
    let mut claimed = claim(&consumers, "a", LONG).await;
    let park = (1..=3)
        .map(|at| ConsumerChange::Park(parked(at, "k")))
        .collect();
    consumers
        .advance(&mut claimed, position(3), park)
        .await
        .unwrap();
    let absent = consumers
        .resolve(&mailer, position(9), Resolution::Skip)
        .await;
    assert!(
        matches!(absent, Err(ConsumerError::NotParked { .. })),
        "{absent:?}"
    );
    consumers
        .resolve(&mailer, position(3), Resolution::Skip)
        .await
        .unwrap();
    consumers
        .resolve(&mailer, position(3), Resolution::Retry)
        .await
        .unwrap();
    consumers
        .resolve(&mailer, position(1), Resolution::Skip)
        .await
        .unwrap();
    let list = ListParked {
        resolved: true,
        ..ListParked::default()
    };
    let resolved = consumers.parked(&mailer, &list).await.unwrap();
    let said: Vec<_> = resolved
        .iter()
        .map(|e| (e.position, e.resolution))
        .collect();
    let expected = [
        (position(1), Some(Resolution::Skip)),
        (position(3), Some(Resolution::Retry)),
    ];
    assert_eq!(said, expected);
    assert_eq!(all_parked(&consumers).await.len(), 3);
}

pub async fn parking_again_clears_what_an_operator_said(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    let first = vec![ConsumerChange::Park(parked(1, "k"))];
    consumers
        .advance(&mut claimed, position(1), first)
        .await
        .unwrap();
    consumers
        .resolve(&name("mailer"), position(1), Resolution::Retry)
        .await
        .unwrap();
    let again = ParkedEvent {
        attempts: 4,
        resolution: Some(Resolution::Skip),
        ..parked(1, "k")
    };
    let changes = vec![ConsumerChange::Park(again.clone())];
    consumers
        .advance(&mut claimed, position(1), changes)
        .await
        .unwrap();
    assert_eq!(
        all_parked(&consumers).await,
        [ParkedEvent {
            resolution: None,
            ..again
        }]
    );
    let status = consumers.status(&name("mailer")).await.unwrap().unwrap();
    assert_eq!(status.parked, 1);
}

pub async fn timers_are_due_in_order_and_once_cancelled_never(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    let set = [
        timer("b", 20),
        timer("a", 20),
        timer("z", 10),
        timer("later", 300),
    ];
    let set = set.into_iter().map(ConsumerChange::SetTimer).collect();
    consumers
        .advance(&mut claimed, position(1), set)
        .await
        .unwrap();
    assert!(due(&consumers, 9).await.is_empty());
    assert_eq!(due(&consumers, 10).await, ["z"]);
    assert_eq!(due(&consumers, 299).await, ["z", "a", "b"]);
    let now = Timestamp::from_micros(20);
    let two = consumers.due_timers(&name("mailer"), now, 2).await.unwrap();
    assert_eq!(two, [timer("z", 10), timer("a", 20)]);
    let cancel = ["a", "absent"]
        .map(|id| ConsumerChange::CancelTimer(id.into()))
        .to_vec();
    consumers
        .advance(&mut claimed, position(1), cancel)
        .await
        .unwrap();
    assert_eq!(due(&consumers, 299).await, ["z", "b"]);
    let status = consumers.status(&name("mailer")).await.unwrap().unwrap();
    assert_eq!(status.timers, 3);
}

pub async fn a_timer_set_again_is_due_at_its_new_time_only(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    for at in [10, 40] {
        let set = vec![ConsumerChange::SetTimer(timer("t", at))];
        consumers
            .advance(&mut claimed, Position::START, set)
            .await
            .unwrap();
    }
    assert!(due(&consumers, 39).await.is_empty());
    assert_eq!(due(&consumers, 40).await, ["t"]);
    let status = consumers.status(&name("mailer")).await.unwrap().unwrap();
    assert_eq!(status.timers, 1);
}

pub async fn values_at_their_limits_are_stored(fixture: &impl Fixture) {
    let consumers = consumers(fixture).await;
    let mut claimed = claim(&consumers, "a", LONG).await;
    let widest = ParkedEvent {
        reason: "r".repeat(REASON_BYTES_MAX),
        ..parked(3, &"k".repeat(KEY_BYTES_MAX))
    };
    let timer = Timer {
        data: vec![7; TIMER_DATA_BYTES_MAX].into(),
        ..timer(&"i".repeat(TIMER_ID_BYTES_MAX), 1)
    };
    let changes = vec![
        ConsumerChange::Park(widest.clone()),
        ConsumerChange::SetTimer(timer.clone()),
    ];
    consumers
        .advance(&mut claimed, position(3), changes)
        .await
        .unwrap();
    assert_eq!(all_parked(&consumers).await, [widest]);
    let now = Timestamp::from_micros(1);
    assert_eq!(
        consumers.due_timers(&name("mailer"), now, 1).await.unwrap(),
        [timer]
    );
}
