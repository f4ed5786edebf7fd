//! The steps with groups of competing consumers.
//!
//! **Owns:** creating a group, sharing its events, retrying, parking and replaying them, and a kill in the middle.
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
    PersistentSubscriptionOptions, ReplayParkedMessagesOptions, ResolvedEvent, StreamPosition,
    StreamState, SystemConsumerStrategy,
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
        let create = || self.client.create_persistent_subscription(&*stream, "g", &given);
        create().await?;
        assert!(matches!(create().await, Err(Error::ResourceAlreadyExists)));
        let get = Default::default();
        let info = || self.client.get_persistent_subscription_info(&stream, "g", &get);
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
        let delete = || self.client.delete_persistent_subscription(&*stream, "g", &delete);
        delete().await?;
        assert!(matches!(delete().await, Err(Error::ResourceNotFound)));
        assert!(matches!(self.join(&stream).await, Err(Error::ResourceNotFound)));
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
