//! The steps with groups of competing consumers.
//!
//! **Owns:** creating a group, sharing its events, filtering, retrying, parking and replaying them, and a kill in the middle.
//! **Does not know:** the other steps.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    env,
    time::Duration,
};

use futures::future::join_all;
use kurrentdb::{
    Error, NakAction, PersistentSubscription, PersistentSubscriptionEvent,
    PersistentSubscriptionOptions, PersistentSubscriptionToAllOptions, ReplayParkedMessagesOptions,
    ResolvedEvent, StreamPosition, StreamState, SubscriptionFilter, SystemConsumerStrategy,
};
use serde_json::Value;

use crate::{Flow, Outcome};

fn options() -> PersistentSubscriptionOptions {
    PersistentSubscriptionOptions::default()
        .start_from(StreamPosition::Start)
        .checkpoint_after(Duration::from_millis(50))
        .checkpoint_lower_bound(1)
        .max_retry_count(2)
}

fn amount(event: &ResolvedEvent) -> i64 {
    let json: Value = event.get_original_event().as_json().expect("it is JSON");
    json["amount"].as_i64().expect("a number")
}

/// The next event of a consumer, and how often it was retried.
async fn next(consumer: &mut PersistentSubscription) -> kurrentdb::Result<(usize, ResolvedEvent)> {
    loop {
        if let PersistentSubscriptionEvent::EventAppeared { retry_count, event } =
            consumer.next_subscription_event().await?
        {
            return Ok((retry_count, event));
        }
    }
}

/// Takes and acknowledges whatever comes.
async fn take(
    consumer: &mut PersistentSubscription,
    (seen, count): (&RefCell<BTreeSet<i64>>, &Cell<usize>),
) -> kurrentdb::Result<()> {
    loop {
        let (_, event) = next(consumer).await?;
        assert!(
            seen.borrow_mut().insert(amount(&event)),
            "an event came twice"
        );
        count.set(count.get() + 1);
        consumer.ack(&event).await?;
    }
}

impl Flow {
    async fn put(&self, stream: &str, amounts: std::ops::Range<i64>) -> Outcome {
        let events = amounts.map(|amount| self.deposited(amount)).collect();
        self.append(stream, StreamState::Any, events).await?;
        Ok(())
    }

    async fn join(&self, stream: &str) -> kurrentdb::Result<PersistentSubscription> {
        let options = Default::default();
        self.client
            .subscribe_to_persistent_subscription(stream, "g", &options)
            .await
    }

    async fn parked(&self, stream: &str) -> kurrentdb::Result<usize> {
        let options = Default::default();
        let info = self
            .client
            .get_persistent_subscription_info(stream, "g", &options)
            .await?;
        Ok(info.stats.parked_message_count)
    }

    pub(crate) async fn groups_managed(&self) -> Outcome {
        let stream = self.stream("managed");
        let given = options().consumer_strategy_name(SystemConsumerStrategy::Pinned);
        let create = || {
            self.client
                .create_persistent_subscription(&*stream, "g", &given)
        };
        create().await?;
        assert!(matches!(create().await, Err(Error::ResourceAlreadyExists)));
        let get = Default::default();
        let info = || {
            self.client
                .get_persistent_subscription_info(&stream, "g", &get)
        };
        let settings = info().await?.settings.expect("settings");
        assert_eq!(settings.max_retry_count, 2);
        let changed = options().max_retry_count(7);
        self.client
            .update_persistent_subscription(&*stream, "g", &changed)
            .await?;
        assert_eq!(info().await?.settings.expect("settings").max_retry_count, 7);
        let all = self
            .client
            .list_all_persistent_subscriptions(&Default::default())
            .await?;
        assert!(all.iter().any(|info| info.event_source == stream));
        let delete = Default::default();
        let delete = || {
            self.client
                .delete_persistent_subscription(&*stream, "g", &delete)
        };
        delete().await?;
        assert!(matches!(delete().await, Err(Error::ResourceNotFound)));
        assert!(matches!(
            self.join(&stream).await,
            Err(Error::ResourceNotFound)
        ));
        Ok(())
    }

    /// Waits until the group of a stream has done with everything through a revision, and checks what it tells.
    async fn until_done(&self, stream: &str, revision: u64, consumers: usize) -> Outcome {
        let get = Default::default();
        loop {
            let info = self
                .client
                .get_persistent_subscription_info(stream, "g", &get);
            let info = info.await?;
            if info.stats.last_checkpointed_event_revision == Some(revision) {
                assert_eq!(info.status, "Live");
                assert_eq!(info.connections.len(), consumers);
                assert!(
                    info.connections
                        .iter()
                        .all(|it| it.from.starts_with("127.0.0.1:"))
                );
                assert_eq!(info.stats.total_in_flight_messages, 0);
                assert_eq!(info.stats.last_known_event_revision, Some(revision));
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn groups_shared(&self) -> Outcome {
        let stream = self.stream("shared");
        let given = options().max_subscriber_count(3);
        self.client
            .create_persistent_subscription(&*stream, "g", &given)
            .await?;
        let mut consumers = Vec::new();
        for _ in 0..3 {
            consumers.push(self.join(&stream).await?);
        }
        let full = self.join(&stream).await.map(drop);
        assert!(matches!(full, Err(Error::Grpc { .. })), "{full:?}");
        self.put(&stream, 0..60).await?;
        let seen = RefCell::new(BTreeSet::new());
        let counts = [const { Cell::new(0) }; 3];
        let taking = consumers.iter_mut().zip(&counts);
        let taking = taking.map(|(consumer, count)| take(consumer, (&seen, count)));
        tokio::select! {
            ended = join_all(taking) => panic!("a consumer ended: {ended:?}"),
            done = self.until_done(&stream, 59, 3) => done?,
        }
        assert!(seen.into_inner().into_iter().eq(0..60));
        assert!(
            counts.iter().all(|count| count.get() > 0),
            "a consumer got nothing"
        );
        self.client
            .delete_persistent_subscription(&*stream, "g", &Default::default())
            .await?;
        for consumer in &mut consumers {
            let dropped = next(consumer).await.map(drop);
            assert!(
                matches!(dropped, Err(Error::IllegalStateError(_))),
                "{dropped:?}"
            );
        }
        Ok(())
    }

    pub(crate) async fn groups_of_all(&self) -> Outcome {
        let group = format!("all-{}", self.run);
        let filter = SubscriptionFilter::on_stream_name().add_prefix(self.stream("filtered"));
        let given = PersistentSubscriptionToAllOptions::default()
            .start_from(StreamPosition::Start)
            .filter(filter);
        self.client
            .create_persistent_subscription_to_all(&group, &given)
            .await?;
        self.put(&self.stream("filtered"), 0..3).await?;
        self.put(&self.stream("passed_over"), 3..4).await?;
        let join = Default::default();
        let mut consumer = self
            .client
            .subscribe_to_persistent_subscription_to_all(&group, &join)
            .await?;
        for expected in 0..3 {
            let (retries, event) = next(&mut consumer).await?;
            assert_eq!((amount(&event), retries), (expected, 0));
            consumer.ack(&event).await?;
        }
        let get = Default::default();
        let info = self
            .client
            .get_persistent_subscription_info_to_all(&group, &get)
            .await?;
        assert_eq!((&*info.event_source, info.connections.len()), ("$all", 1));
        let listed = self
            .client
            .list_persistent_subscriptions_to_all(&Default::default())
            .await?;
        assert!(listed.iter().any(|info| info.group_name == group));
        self.client
            .delete_persistent_subscription_to_all(&group, &Default::default())
            .await?;
        Ok(())
    }

    pub(crate) async fn groups_settled(&self) -> Outcome {
        let stream = self.stream("settled");
        self.client
            .create_persistent_subscription(&*stream, "g", &options())
            .await?;
        self.put(&stream, 0..4).await?;
        let mut consumer = self.join(&stream).await?;
        let mut seen = Vec::new();
        while seen.len() < 6 {
            let (retries, event) = next(&mut consumer).await?;
            seen.push((amount(&event), retries));
            match amount(&event) {
                1 => consumer.nack(&event, NakAction::Retry, "one").await?,
                2 => consumer.nack(&event, NakAction::Park, "two").await?,
                3 => consumer.nack(&event, NakAction::Skip, "").await?,
                _ => consumer.ack(&event).await?,
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (3, 0)]);
        while self.parked(&stream).await? != 2 {}
        let one = ReplayParkedMessagesOptions::default().stop_at(1);
        for replay in [one, ReplayParkedMessagesOptions::default()] {
            self.client
                .replay_parked_messages(&stream, "g", &replay)
                .await?;
            let (_, event) = next(&mut consumer).await?;
            seen.push((amount(&event), 0));
            consumer.ack(&event).await?;
            let left = 8 - seen.len();
            while self.parked(&stream).await? != left {}
        }
        assert_eq!(seen[6..], [(1, 0), (2, 0)]);
        Ok(())
    }

    /// A consumer that joins again when its server is gone.
    async fn consume(&self, stream: &str, seen: &RefCell<BTreeSet<i64>>, joined: &Cell<usize>) {
        loop {
            if let Ok(mut consumer) = self.join(stream).await {
                joined.set(joined.get() + 1);
                while let Ok((_, event)) = next(&mut consumer).await {
                    seen.borrow_mut().insert(amount(&event));
                    if consumer.ack(&event).await.is_err() {
                        break;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn groups_killed(&self) -> Outcome {
        let stream = self.stream("group_survivor");
        self.client
            .create_persistent_subscription(&*stream, "g", &options())
            .await?;
        self.put(&stream, 0..200).await?;
        let (seen, joined) = (RefCell::new(BTreeSet::new()), Cell::new(0));
        let consumers = join_all((0..3).map(|_| self.consume(&stream, &seen, &joined)));
        let check = async {
            while seen.borrow().len() < 20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if let Ok(restart) = env::var("LEFTFOLD_RESTART") {
                let mut command = tokio::process::Command::new("sh");
                assert!(command.args(["-c", &restart]).status().await?.success());
            }
            while self.put(&stream, 200..220).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            while seen.borrow().len() < 220 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Outcome::Ok(())
        };
        tokio::select! {
            _ = consumers => {},
            checked = check => checked?,
        }
        assert_eq!(self.parked(&stream).await?, 0);
        if env::var("LEFTFOLD_RESTART").is_ok() {
            assert!(joined.get() > 3, "the consumers were not interrupted");
        }
        Ok(())
    }
}
