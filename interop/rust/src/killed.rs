//! The step in which the server is killed while clients append and subscribe.
//!
//! **Owns:** writers that insist, subscriptions that come back, and what both have to agree on in the end.
//! **Does not know:** the other steps.
//! **Invariants:** the kill comes while every writer waits for an answer.

use std::{
    cell::{Cell, RefCell},
    env,
    time::Duration,
};

use futures::future::{join_all, try_join};
use kurrentdb::{
    ReadAllOptions, ReadStreamOptions, RetryOptions, StreamPosition, StreamState,
    SubscribeToAllOptions, SubscribeToStreamOptions, Subscription, SubscriptionEvent,
    SubscriptionFilter,
};
use uuid::Uuid;

use crate::{Flow, Outcome, collect, ids};

/// Appends one event after the other, and the same one again until it is acknowledged.
struct Writer {
    stream: String,
    acknowledged: RefCell<Vec<Uuid>>,
    failures: Cell<usize>,
}

impl Writer {
    fn count(&self) -> usize {
        self.acknowledged.borrow().len()
    }

    async fn run(&self, flow: &Flow, stopped: &Cell<bool>) {
        while !stopped.get() {
            let id = Uuid::new_v4();
            let event = flow.deposited(self.count() as i64).id(id);
            // Whether it was stored is not known; the same event again is stored once.
            while flow
                .append(&self.stream, StreamState::Any, vec![event.clone()])
                .await
                .is_err()
            {
                self.failures.set(self.failures.get() + 1);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            self.acknowledged.borrow_mut().push(id);
        }
    }
}

/// What a subscription brought, and how often it was confirmed.
#[derive(Default)]
struct Following {
    events: RefCell<Vec<Uuid>>,
    confirmed: Cell<usize>,
}

impl Following {
    /// With retries enabled, this client resubscribes by itself after the last event it delivered.
    async fn run(&self, mut subscription: Subscription) -> Outcome {
        loop {
            match subscription.next_subscription_event().await? {
                SubscriptionEvent::Confirmed(_) => self.confirmed.set(self.confirmed.get() + 1),
                SubscriptionEvent::EventAppeared(event) => {
                    self.events.borrow_mut().push(event.get_original_event().id);
                }
                _ => {}
            }
        }
    }

    fn has(&self, count: usize) -> bool {
        self.events.borrow().len() >= count
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Flow {
    pub(crate) async fn killed(&self) -> Outcome {
        let writers: Vec<Writer> = (0..4)
            .map(|number| Writer {
                stream: self.stream(&format!("survivor_{number}")),
                acknowledged: RefCell::default(),
                failures: Cell::default(),
            })
            .collect();
        let everyone = SubscriptionFilter::on_stream_name().add_prefix("rust_survivor_");
        let retry = RetryOptions::default()
            .retry_forever()
            .retry_delay(Duration::from_millis(50));
        let options = SubscribeToAllOptions::default()
            .position(StreamPosition::Start)
            .filter(everyone.clone())
            .retry_options(retry);
        let to_all = self.client.subscribe_to_all(&options).await;
        let options = SubscribeToStreamOptions::default()
            .start_from(StreamPosition::Start)
            .retry_options(retry);
        let first = writers[0].stream.as_str();
        let to_stream = self.client.subscribe_to_stream(first, &options).await;
        let (all, one) = (Following::default(), Following::default());
        let everything = ReadAllOptions::default().filter(everyone);
        let check = async {
            self.write_through_a_kill(&writers, &all, &one).await?;
            let stored = ids(&collect(self.client.read_all(&everything).await?).await?);
            until(|| all.has(stored.len()) && one.has(writers[0].count())).await;
            let acknowledged: usize = writers.iter().map(Writer::count).sum();
            assert_eq!(stored.len(), acknowledged);
            assert_eq!(*all.events.borrow(), stored);
            assert_eq!(*one.events.borrow(), *writers[0].acknowledged.borrow());
            Outcome::Ok(())
        };
        tokio::select! {
            ended = try_join(all.run(to_all), one.run(to_stream)) => { ended?; },
            checked = check => checked?,
        }
        for writer in &writers {
            let stored = self.read(&writer.stream, ReadStreamOptions::default());
            assert_eq!(ids(&stored.await?), *writer.acknowledged.borrow());
        }
        if env::var("LEFTFOLD_RESTART").is_ok() {
            let interrupted = writers.iter().filter(|writer| writer.failures.get() > 0);
            assert!(interrupted.count() > 1);
            assert!(all.confirmed.get() > 1 && one.confirmed.get() > 1);
        }
        Ok(())
    }

    async fn write_through_a_kill(
        &self,
        writers: &[Writer],
        all: &Following,
        one: &Following,
    ) -> Outcome {
        let stopped = Cell::new(false);
        let each_has = |count| writers.iter().all(|writer| writer.count() >= count);
        let kill = async {
            until(|| each_has(25) && all.has(1) && one.has(1)).await;
            if let Ok(restart) = env::var("LEFTFOLD_RESTART") {
                let mut command = tokio::process::Command::new("sh");
                assert!(command.args(["-c", &restart]).status().await?.success());
                let newest = writers.iter().map(Writer::count).max().unwrap_or(0);
                until(|| each_has(newest + 25)).await;
            }
            stopped.set(true);
            Outcome::Ok(())
        };
        let writing = join_all(writers.iter().map(|writer| writer.run(self, &stopped)));
        let (killed, _) = tokio::join!(kill, writing);
        killed
    }
}
