//! What a program in Rust does with an event store, step by step, through the published client.
//!
//! **Owns:** the steps; each says what it expects, and the first surprise ends the flow. **Does not know:** the server.
//! **Invariants:** `LEFTFOLD_URL` says where the server is; `LEFTFOLD_RESTART` kills it and starts it again.

use std::{
    env,
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kurrentdb::{
    AppendToStreamOptions, Client, DeleteStreamOptions, EventData, ReadAllOptions,
    ReadStreamOptions, ResolvedEvent, StreamMetadataBuilder, StreamPosition, StreamState,
    SubscribeToAllOptions, SubscribeToStreamOptions, Subscription, SubscriptionEvent,
    SubscriptionFilter, TombstoneStreamOptions, WriteResult,
};
use serde_json::{Value, json};
use uuid::Uuid;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

struct Flow {
    client: Client,
    run: String,
}

#[tokio::main]
async fn main() -> Outcome {
    let url = env::var("LEFTFOLD_URL")
        .unwrap_or_else(|_| "kurrentdb://127.0.0.1:2113?tls=false".to_owned());
    let run = Uuid::new_v4().to_string()[..8].to_owned();
    let flow = Flow {
        client: Client::new(url.parse()?)?,
        run,
    };
    flow.opened().await?;
    done("an account is opened and read in both directions");
    flow.conflict().await?;
    done("a conflict names both versions");
    flow.repeated().await?;
    done("an append that is repeated is stored once");
    flow.missing().await?;
    done("a missing stream is an error of its own");
    flow.filtered().await?;
    done("filters choose by type and by stream");
    flow.followed().await?;
    done("a subscription gives what is stored, says that it has caught up, and goes on live");
    flow.checkpoints().await?;
    done("a subscription with a filter tells checkpoints");
    flow.bounded().await?;
    done("metadata bounds a stream");
    flow.deleted().await?;
    done("a deleted stream comes back with its next event");
    flow.tombstoned().await?;
    done("a tombstone is for ever");
    flow.linked().await?;
    done("a link leads to its event");
    flow.batched().await?;
    done("batches are appended on one call");
    flow.survives().await?;
    done("a server that is killed loses nothing it acknowledged, and the client comes back");
    println!("the flow of the Rust client is through");
    Ok(())
}

fn done(what: &str) {
    println!("ok  {what}");
}

impl Flow {
    fn stream(&self, name: &str) -> String {
        format!("rust_{name}-{}", self.run)
    }

    fn event(&self, kind: &str, amount: i64) -> EventData {
        EventData::json(format!("{kind}_{}", self.run), &json!({ "amount": amount }))
            .expect("it is JSON")
            .id(Uuid::new_v4())
    }

    fn deposited(&self, amount: i64) -> EventData {
        self.event("Deposited", amount)
    }

    async fn append(
        &self,
        stream: &str,
        state: StreamState,
        events: Vec<EventData>,
    ) -> kurrentdb::Result<WriteResult> {
        let options = AppendToStreamOptions::default().stream_state(state);
        self.client.append_to_stream(stream, &options, events).await
    }

    async fn read(
        &self,
        stream: &str,
        options: ReadStreamOptions,
    ) -> kurrentdb::Result<Vec<ResolvedEvent>> {
        let mut read = self.client.read_stream(stream, &options).await?;
        let mut all = Vec::new();
        while let Some(event) = read.next().await? {
            all.push(event);
        }
        Ok(all)
    }

    async fn revisions(&self, stream: &str) -> kurrentdb::Result<Vec<u64>> {
        let events = self.read(stream, ReadStreamOptions::default()).await?;
        Ok(events
            .iter()
            .map(|event| event.get_original_event().revision)
            .collect())
    }

    async fn opened(&self) -> Outcome {
        let account = self.stream("account");
        let events = vec![self.deposited(100), self.event("Withdrawn", 30)];
        let written = self.append(&account, StreamState::NoStream, events).await?;
        assert_eq!(written.next_expected_version, 1);
        let forwards = self.read(&account, ReadStreamOptions::default()).await?;
        let balance: i64 = forwards
            .iter()
            .zip(amounts(&forwards))
            .map(|(event, amount)| {
                let kind = &event.get_original_event().event_type;
                if kind.starts_with("Deposited") {
                    amount
                } else {
                    -amount
                }
            })
            .sum();
        assert_eq!(balance, 70);
        let newest = ReadStreamOptions::default()
            .backwards()
            .position(StreamPosition::End)
            .max_count(1);
        assert_eq!(amounts(&self.read(&account, newest).await?), [30]);
        let second = ReadStreamOptions::default().position(StreamPosition::Position(1));
        assert_eq!(amounts(&self.read(&account, second).await?), [30]);
        Ok(())
    }

    async fn conflict(&self) -> Outcome {
        let account = self.stream("account");
        for state in [
            StreamState::NoStream,
            StreamState::StreamRevision(0),
            StreamState::StreamRevision(9),
        ] {
            let refused = self.append(&account, state, vec![self.deposited(1)]).await;
            let Err(kurrentdb::Error::WrongExpectedVersion { expected, current }) = refused else {
                return Err(format!("expected a conflict, got {refused:?}").into());
            };
            assert_eq!(expected, state);
            assert_eq!(current, kurrentdb::CurrentRevision::Current(1));
        }
        Ok(())
    }

    async fn repeated(&self) -> Outcome {
        let name = self.stream("repeated");
        let once = self.deposited(5);
        let state = StreamState::NoStream;
        let first = self.append(&name, state, vec![once.clone()]).await?;
        let again = self.append(&name, state, vec![once]).await?;
        assert_eq!(first.position, again.position);
        assert_eq!(self.revisions(&name).await?, [0]);
        Ok(())
    }

    async fn missing(&self) -> Outcome {
        let refused = self.revisions(&self.stream("missing")).await;
        assert!(
            matches!(refused, Err(kurrentdb::Error::ResourceNotFound)),
            "{refused:?}"
        );
        Ok(())
    }

    async fn filtered(&self) -> Outcome {
        let all = ReadAllOptions::default()
            .position(StreamPosition::Start)
            .max_count(1);
        let mut read = self.client.read_all(&all).await?;
        let first = read.next().await?.ok_or("the log is empty")?;
        assert!(first.get_original_event().event_type.starts_with('$'));
        let by_type =
            SubscriptionFilter::on_event_type().add_prefix(format!("Withdrawn_{}", self.run));
        let by_stream =
            SubscriptionFilter::on_stream_name().regex(format!("^{}$", self.stream("account")));
        for (filter, expected) in [(by_type, vec![30]), (by_stream, vec![100, 30])] {
            let options = SubscribeToAllOptions::default()
                .position(StreamPosition::Start)
                .filter(filter);
            let mut subscription = self.client.subscribe_to_all(&options).await;
            assert_eq!(
                amounts(&first_of(&mut subscription, expected.len()).await?),
                expected
            );
        }
        Ok(())
    }

    async fn followed(&self) -> Outcome {
        let name = self.stream("followed");
        let events = vec![self.deposited(1), self.deposited(2)];
        self.append(&name, StreamState::Any, events).await?;
        let options = SubscribeToStreamOptions::default().start_from(StreamPosition::Start);
        let mut subscription = self
            .client
            .subscribe_to_stream(name.as_str(), &options)
            .await;
        let mut seen = first_of(&mut subscription, 2).await?;
        let events = vec![self.deposited(3), self.deposited(4)];
        self.append(&name, StreamState::Any, events).await?;
        seen.extend(first_of(&mut subscription, 2).await?);
        assert_eq!(amounts(&seen), [1, 2, 3, 4]);
        let options = SubscribeToStreamOptions::default().start_from(StreamPosition::Position(1));
        let mut behind = self
            .client
            .subscribe_to_stream(name.as_str(), &options)
            .await;
        assert_eq!(amounts(&first_of(&mut behind, 2).await?), [3, 4]);
        Ok(())
    }

    async fn checkpoints(&self) -> Outcome {
        let filter = SubscriptionFilter::on_event_type()
            .add_prefix(format!("Never_{}", self.run))
            .max(1);
        let options = SubscribeToAllOptions::default()
            .position(StreamPosition::Start)
            .filter(filter);
        let mut subscription = self.client.subscribe_to_all(&options).await;
        while !matches!(
            subscription.next_subscription_event().await?,
            SubscriptionEvent::Checkpoint(_)
        ) {}
        Ok(())
    }

    async fn bounded(&self) -> Outcome {
        let name = self.stream("bounded");
        let events = (1..=4).map(|amount| self.deposited(amount)).collect();
        self.append(&name, StreamState::Any, events).await?;
        let metadata = StreamMetadataBuilder::new().max_count(2).build();
        let options = AppendToStreamOptions::default().stream_state(StreamState::NoStream);
        self.client
            .set_stream_metadata(name.as_str(), &options, &metadata)
            .await?;
        assert_eq!(self.revisions(&name).await?, [2, 3]);
        let options = ReadStreamOptions::default().max_count(1);
        let stored = self
            .client
            .get_stream_metadata(name.as_str(), &options)
            .await?;
        assert!(stored.is_success());
        Ok(())
    }

    async fn deleted(&self) -> Outcome {
        let name = self.stream("deleted");
        let events = vec![self.deposited(1), self.deposited(2)];
        self.append(&name, StreamState::Any, events).await?;
        let options = DeleteStreamOptions::default().stream_state(StreamState::StreamRevision(1));
        self.client.delete_stream(name.as_str(), &options).await?;
        let refused = self.revisions(&name).await;
        assert!(
            matches!(refused, Err(kurrentdb::Error::ResourceNotFound)),
            "{refused:?}"
        );
        self.append(&name, StreamState::NoStream, vec![self.deposited(3)])
            .await?;
        assert_eq!(self.revisions(&name).await?, [2]);
        Ok(())
    }

    async fn tombstoned(&self) -> Outcome {
        let name = self.stream("tombstoned");
        self.append(&name, StreamState::Any, vec![self.deposited(1)])
            .await?;
        let options = TombstoneStreamOptions::default();
        self.client
            .tombstone_stream(name.as_str(), &options)
            .await?;
        // Known before the first event, so the call itself fails.
        let options = ReadStreamOptions::default();
        let refused = self.client.read_stream(name.as_str(), &options).await;
        assert!(matches!(refused, Err(kurrentdb::Error::ResourceDeleted)));
        let refused = self
            .append(&name, StreamState::Any, vec![self.deposited(2)])
            .await;
        assert!(
            matches!(refused, Err(kurrentdb::Error::ResourceDeleted)),
            "{refused:?}"
        );
        Ok(())
    }

    async fn linked(&self) -> Outcome {
        let (name, target) = (self.stream("linked"), self.stream("account"));
        let link = EventData::binary("$>", format!("0@{target}").into()).id(Uuid::new_v4());
        self.append(&name, StreamState::Any, vec![link]).await?;
        let options = ReadStreamOptions::default().resolve_link_tos();
        let resolved = self.read(&name, options).await?;
        let event = resolved[0].event.as_ref().ok_or("the link leads nowhere")?;
        assert_eq!(event.stream_id(), target);
        assert!(resolved[0].is_resolved());
        Ok(())
    }

    async fn batched(&self) -> Outcome {
        let name = self.stream("batched");
        let batch = self.client.batch_append(&Default::default()).await?;
        for amount in 0..20 {
            let events = vec![self.deposited(amount), self.deposited(amount)];
            batch
                .append_to_stream(name.as_str(), StreamState::Any, events)
                .await?;
        }
        assert_eq!(self.revisions(&name).await?.len(), 40);
        Ok(())
    }

    async fn survives(&self) -> Outcome {
        let name = self.stream("survivor");
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let stopped = AtomicBool::new(false);
        let count = || acknowledged.lock().expect("nobody panics").len();
        let write = async {
            for amount in 0.. {
                let id = Uuid::new_v4();
                let event = self.deposited(amount).id(id);
                // Whether it was stored is not known; the same event again is stored once.
                while self
                    .append(&name, StreamState::Any, vec![event.clone()])
                    .await
                    .is_err()
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                acknowledged.lock().expect("nobody panics").push(id);
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        let restart = async {
            while count() < 50 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let before = count();
            if let Ok(restart) = env::var("LEFTFOLD_RESTART") {
                let status = tokio::process::Command::new("sh")
                    .args(["-c", &restart])
                    .status()
                    .await;
                assert!(status.is_ok_and(|status| status.success()));
            }
            while count() < before + 50 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stopped.store(true, Ordering::Relaxed);
        };
        tokio::join!(write, restart);
        let options = ReadStreamOptions::default().max_count(1_000_000);
        let stored: Vec<Uuid> = self
            .read(&name, options)
            .await?
            .iter()
            .map(|event| event.get_original_event().id)
            .collect();
        assert_eq!(stored, *acknowledged.lock().expect("nobody panics"));
        Ok(())
    }
}

fn amounts(events: &[ResolvedEvent]) -> Vec<i64> {
    let amount = |event: &ResolvedEvent| {
        let data = event.get_original_event().as_json::<Value>();
        data.expect("it is JSON")["amount"]
            .as_i64()
            .expect("it is a number")
    };
    events.iter().map(amount).collect()
}

/// The next events of a subscription.
async fn first_of(subscription: &mut Subscription, count: usize) -> Outcome<Vec<ResolvedEvent>> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(subscription.next().await?);
    }
    Ok(events)
}
