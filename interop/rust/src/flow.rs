//! What a program in Rust does with an event store, step by step, through the published client.
//!
//! **Owns:** the steps; each says what it expects, and the first surprise ends the flow. **Does not know:** the server.
//! **Invariants:** `LEFTFOLD_URL` says where the server is; `LEFTFOLD_RESTART` kills it and starts it again.

mod groups;
mod killed;
mod lives;

use std::{env, error::Error, time::Duration};

use futures::future::join_all;
use kurrentdb::{
    AppendToStreamOptions, Client, CurrentRevision, EventData, Position, ReadAllOptions,
    ReadStream, ReadStreamOptions, ResolvedEvent, StreamPosition, StreamState,
    SubscribeToAllOptions, SubscribeToStreamOptions, Subscription, SubscriptionEvent,
    SubscriptionFilter, WriteResult,
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
    // With its defaults, this client closes permanently when a server is away for a second.
    let mark = if url.contains('?') { '&' } else { '?' };
    let patient = format!("{url}{mark}maxDiscoverAttempts=100");
    let flow = Flow {
        client: Client::new(patient.parse()?)?,
        run: Uuid::new_v4().to_string()[..8].to_owned(),
    };
    flow.opened().await?;
    done("an account is opened and read in both directions");
    flow.conflict().await?;
    done("a conflict names both versions");
    let repeated = flow.repeated().await?;
    done("an append that is repeated is stored once, whatever it expected");
    flow.kept().await?;
    done("bytes and metadata come back as they were");
    flow.missing().await?;
    done("a missing stream is an error of its own");
    flow.everything().await?;
    done("everything is read in both directions, from any position");
    flow.filtered().await?;
    done("filters choose by type and by stream, by prefix and by expression");
    flow.followed().await?;
    done("a subscription gives what is stored, says that it has caught up, and goes on live");
    flow.checkpoints().await?;
    done("a subscription with a filter tells checkpoints, and one can go on from there");
    flow.bounded().await?;
    done("metadata bounds a stream, and keeps keys of one's own");
    flow.governed().await?;
    done("ages, caching and rights come back as they were set");
    flow.linked().await?;
    done("a link leads to its event, also in a subscription, or shows itself");
    flow.killed().await?;
    done("a server is killed under appends and subscriptions: nothing is lost or told twice");
    flow.still_there(repeated).await?;
    done("what was there before the server was killed still is");
    flow.deleted().await?;
    done("a deleted stream comes back with its next event");
    flow.tombstoned().await?;
    done("a tombstone is permanent, and ends subscriptions");
    flow.batched().await?;
    done("batches are appended on one call, many at once");
    flow.copied().await?;
    done("an event id belongs to its stream");
    flow.groups_managed().await?;
    done("a group is created once, found, changed and deleted");
    flow.groups_shared().await?;
    done(
        "consumers share the events of a stream, each gets some, and deleting the group ends them",
    );
    flow.groups_of_all().await?;
    done("a group of everything takes what its filter lets pass");
    flow.groups_settled().await?;
    done("a consumer acknowledges, retries, parks and skips, and gets what is replayed");
    flow.groups_killed().await?;
    done("a server is killed under a group: every event is seen, and nothing is parked");
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
        collect(self.client.read_stream(stream, &options).await?).await
    }

    async fn read_all(&self, options: ReadAllOptions) -> kurrentdb::Result<Vec<ResolvedEvent>> {
        collect(self.client.read_all(&options).await?).await
    }

    async fn follow_stream(&self, stream: &str, from: StreamPosition<u64>) -> Subscription {
        let options = SubscribeToStreamOptions::default().start_from(from);
        self.client.subscribe_to_stream(stream, &options).await
    }

    async fn follow_all(
        &self,
        from: StreamPosition<Position>,
        filter: SubscriptionFilter,
    ) -> Subscription {
        let options = SubscribeToAllOptions::default()
            .position(from)
            .filter(filter);
        self.client.subscribe_to_all(&options).await
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
        let first = ReadStreamOptions::default()
            .position(StreamPosition::Position(0))
            .backwards();
        assert_eq!(amounts(&self.read(&account, first).await?), [100]);
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
            assert_eq!(current, CurrentRevision::Current(1));
        }
        let nobody = self.stream("nobody");
        let refused = self
            .append(&nobody, StreamState::StreamExists, vec![self.deposited(1)])
            .await;
        let Err(kurrentdb::Error::WrongExpectedVersion { current, .. }) = refused else {
            return Err(format!("expected a conflict, got {refused:?}").into());
        };
        assert_eq!(current, CurrentRevision::NoStream);
        Ok(())
    }

    async fn repeated(&self) -> Outcome<(EventData, WriteResult)> {
        let name = self.stream("repeated");
        let once = self.deposited(5);
        let state = StreamState::NoStream;
        let first = self.append(&name, state, vec![once.clone()]).await?;
        for state in [state, StreamState::Any, StreamState::StreamExists] {
            let again = self.append(&name, state, vec![once.clone()]).await?;
            assert_eq!(again.position, first.position);
        }
        let next = self.deposited(6);
        let state = StreamState::StreamRevision(0);
        let second = self.append(&name, state, vec![next.clone()]).await?;
        let again = self.append(&name, state, vec![next]).await?;
        assert_eq!(again.position, second.position);
        assert_eq!(self.revisions(&name).await?, [0, 1]);
        Ok((once, first))
    }

    async fn copied(&self) -> Outcome {
        let event = self.deposited(7);
        let names = [self.stream("one"), self.stream("other")];
        let mut all_ids = Vec::new();
        for name in &names {
            let first = self.append(name, StreamState::NoStream, vec![event.clone()]);
            let first = first.await?.position;
            let again = self.append(name, StreamState::NoStream, vec![event.clone()]);
            assert_eq!(again.await?.position, first);
            let events = self.read(name, ReadStreamOptions::default()).await?;
            all_ids.push(ids(&events));
        }
        assert_eq!(all_ids[0].len(), 1);
        assert_eq!(all_ids[0], all_ids[1]);
        Ok(())
    }

    async fn kept(&self) -> Outcome {
        let name = self.stream("bytes");
        let data: &[u8] = &[0, 1, 2, 255];
        let bytes = EventData::binary("Bytes", data.into())
            .id(Uuid::new_v4())
            .metadata([9_u8].as_slice().into());
        let about = json!({ "by": "ann" });
        let events = vec![bytes, self.deposited(1).metadata_as_json(&about)?];
        self.append(&name, StreamState::Any, events).await?;
        let stored = self.read(&name, ReadStreamOptions::default()).await?;
        let (bytes, deposit) = (
            stored[0].get_original_event(),
            stored[1].get_original_event(),
        );
        assert_eq!(
            (&bytes.data[..], &bytes.custom_metadata[..]),
            (data, &[9][..])
        );
        assert!(!bytes.is_json && deposit.is_json);
        let metadata: Value = serde_json::from_slice(&deposit.custom_metadata)?;
        assert_eq!(metadata, about);
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

    async fn everything(&self) -> Outcome {
        let oldest = self
            .read_all(ReadAllOptions::default().max_count(1))
            .await?;
        assert!(oldest[0].get_original_event().event_type.starts_with('$'));
        let account = self.stream("account");
        let stored = self.read(&account, ReadStreamOptions::default()).await?;
        let from = |event: &ResolvedEvent, count| {
            ReadAllOptions::default()
                .position(StreamPosition::Position(
                    event.get_original_event().position,
                ))
                .max_count(count)
        };
        // A position is part of what is read forwards from it, and not of what is read backwards.
        let forwards = self.read_all(from(&stored[0], 2)).await?;
        assert_eq!(ids(&forwards), ids(&stored));
        let backwards = self.read_all(from(&stored[1], 1).backwards()).await?;
        assert_eq!(ids(&backwards), ids(&stored[..1]));
        let newest = ReadAllOptions::default()
            .position(StreamPosition::End)
            .max_count(1);
        let newest = self.read_all(newest).await?;
        assert_eq!(
            ids(&self.read_all(from(&newest[0], 9)).await?),
            ids(&newest)
        );
        Ok(())
    }

    async fn filtered(&self) -> Outcome {
        let (account, withdrawn) = (self.stream("account"), format!("Withdrawn_{}", self.run));
        let by_type = SubscriptionFilter::on_event_type;
        let by_stream = SubscriptionFilter::on_stream_name;
        for (filter, expected) in [
            (
                by_type().add_prefix("Nothing_").add_prefix(&withdrawn),
                vec![30],
            ),
            (by_type().regex(format!("^With.*_{}$", self.run)), vec![30]),
            (by_stream().add_prefix(&account), vec![100, 30]),
            (by_stream().regex(format!("^{account}$")), vec![100, 30]),
        ] {
            let options = ReadAllOptions::default().filter(filter.clone());
            assert_eq!(amounts(&self.read_all(options.clone()).await?), expected);
            let backwards = options.position(StreamPosition::End);
            let reversed: Vec<i64> = expected.iter().rev().copied().collect();
            assert_eq!(amounts(&self.read_all(backwards).await?), reversed);
            let mut subscription = self.follow_all(StreamPosition::Start, filter).await;
            let events = first_of(&mut subscription, expected.len()).await?;
            assert_eq!(amounts(&events), expected);
        }
        Ok(())
    }

    async fn followed(&self) -> Outcome {
        let name = self.stream("followed");
        let events = vec![self.deposited(1), self.deposited(2)];
        self.append(&name, StreamState::Any, events).await?;
        let mut subscription = self.follow_stream(&name, StreamPosition::Start).await;
        let mut seen = first_of(&mut subscription, 2).await?;
        let caught_up = loop {
            if let SubscriptionEvent::CaughtUp(told) =
                subscription.next_subscription_event().await?
            {
                break told.ok_or("it does not say where")?;
            }
        };
        assert_eq!(caught_up.stream_revision, Some(1));
        let events = vec![self.deposited(3), self.deposited(4)];
        self.append(&name, StreamState::Any, events).await?;
        seen.extend(first_of(&mut subscription, 2).await?);
        assert_eq!(amounts(&seen), [1, 2, 3, 4]);
        let mut behind = self.follow_stream(&name, StreamPosition::Position(1)).await;
        assert_eq!(amounts(&first_of(&mut behind, 2).await?), [3, 4]);
        let position = StreamPosition::Position(seen[1].get_original_event().position);
        let options = SubscribeToAllOptions::default().position(position);
        let mut behind = self.client.subscribe_to_all(&options).await;
        assert_eq!(amounts(&first_of(&mut behind, 2).await?), [3, 4]);
        Ok(())
    }

    async fn checkpoints(&self) -> Outcome {
        let name = self.stream("checked");
        let events = (1..=3).map(|amount| self.deposited(amount)).collect();
        self.append(&name, StreamState::Any, events).await?;
        let stored = self.read(&name, ReadStreamOptions::default()).await?;
        let first = stored[0].get_original_event().position.commit;
        let never = SubscriptionFilter::on_event_type()
            .add_prefix(format!("Never_{}", self.run))
            .max(1);
        let mut subscription = self.follow_all(StreamPosition::Start, never).await;
        let checkpoint = loop {
            match subscription.next_subscription_event().await? {
                SubscriptionEvent::EventAppeared(_) => return Err("nothing matches".into()),
                // Not before this stream's first event, so that what comes behind the checkpoint is known.
                SubscriptionEvent::Checkpoint(told) if told.commit >= first => break told,
                _ => {}
            }
        };
        self.append(&name, StreamState::Any, vec![self.deposited(4)])
            .await?;
        let mut expected = self.read(&name, ReadStreamOptions::default()).await?;
        expected.retain(|event| event.get_original_event().position.commit > checkpoint.commit);
        let own = SubscriptionFilter::on_stream_name().add_prefix(&name);
        let position = StreamPosition::Position(checkpoint);
        let mut behind = self.follow_all(position, own).await;
        let behind = first_of(&mut behind, expected.len()).await?;
        assert_eq!(ids(&behind), ids(&expected));
        Ok(())
    }

    async fn still_there(&self, (event, answer): (EventData, WriteResult)) -> Outcome {
        let account = self.stream("account");
        let stored = self.read(&account, ReadStreamOptions::default()).await?;
        assert_eq!(amounts(&stored), [100, 30]);
        for state in [StreamState::Any, StreamState::NoStream] {
            let again = self
                .append(&self.stream("repeated"), state, vec![event.clone()])
                .await?;
            assert_eq!(again.position, answer.position);
        }
        assert_eq!(self.revisions(&self.stream("bounded")).await?, [3]);
        let (governed, _) = self.metadata(&self.stream("governed")).await?;
        assert_eq!(governed.max_age, Some(Duration::from_secs(3600)));
        Ok(())
    }

    async fn linked(&self) -> Outcome {
        let (name, account) = (self.stream("linked"), self.stream("account"));
        let link = |place: String| EventData::binary("$>", place.into()).id(Uuid::new_v4());
        let links = vec![
            link(format!("0@{account}")),
            link(format!("7@{}", self.stream("missing"))),
        ];
        self.append(&name, StreamState::Any, links).await?;
        for unresolved in self.read(&name, ReadStreamOptions::default()).await? {
            assert!(!unresolved.is_resolved() && unresolved.link.is_none());
            assert_eq!(unresolved.get_original_event().event_type, "$>");
        }
        let options = ReadStreamOptions::default().resolve_link_tos();
        let read = self.read(&name, options).await?;
        let options = SubscribeToStreamOptions::default()
            .start_from(StreamPosition::Start)
            .resolve_link_tos();
        let mut subscription = self
            .client
            .subscribe_to_stream(name.as_str(), &options)
            .await;
        for events in [read, first_of(&mut subscription, 2).await?] {
            let event = events[0].event.as_ref().ok_or("the link leads nowhere")?;
            assert_eq!((event.stream_id(), event.revision), (account.as_str(), 0));
            assert!(events[1].event.is_none());
            for (revision, event) in (0..).zip(&events) {
                let link = event.link.as_ref().ok_or("it is no link")?;
                assert_eq!((link.stream_id(), link.revision), (name.as_str(), revision));
            }
        }
        Ok(())
    }

    async fn batched(&self) -> Outcome {
        let name = self.stream("batched");
        let batch = self.client.batch_append(&Default::default()).await?;
        let append = |state, events| batch.append_to_stream(name.as_str(), state, events);
        let pairs: Vec<Vec<EventData>> = (0..20)
            .map(|amount| vec![self.deposited(amount), self.deposited(amount)])
            .collect();
        let at_once = pairs
            .iter()
            .map(|pair| append(StreamState::Any, pair.clone()));
        let answers: Vec<_> = join_all(at_once)
            .await
            .into_iter()
            .collect::<Result<_, _>>()?;
        // They are begun in the order in which they came.
        let revisions: Vec<_> = answers
            .iter()
            .filter_map(|answer| answer.current_revision())
            .collect();
        assert_eq!(
            revisions,
            (0..20).map(|pair| pair * 2 + 1).collect::<Vec<u64>>()
        );
        let again = append(StreamState::Any, pairs[7].clone()).await?;
        assert_eq!(again.current_position(), answers[7].current_position());
        assert_eq!(self.revisions(&name).await?.len(), 40);
        let refused = append(StreamState::NoStream, vec![self.deposited(1)]).await;
        assert!(refused.is_err(), "{refused:?}");
        Ok(())
    }
}

/// All that a read gives.
async fn collect(mut read: ReadStream) -> kurrentdb::Result<Vec<ResolvedEvent>> {
    let mut all = Vec::new();
    while let Some(event) = read.next().await? {
        all.push(event);
    }
    Ok(all)
}

fn ids(events: &[ResolvedEvent]) -> Vec<Uuid> {
    let id = |event: &ResolvedEvent| event.get_original_event().id;
    events.iter().map(id).collect()
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
