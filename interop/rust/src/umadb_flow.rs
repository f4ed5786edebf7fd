//! What a program in Rust does with an event store, step by step, through UmaDB's published client.
//!
//! **Owns:** the steps; each says what it expects, and the first surprise ends the flow. **Does not know:** the server.
//! **Invariants:** `LEFTFOLD_UMADB_URL` says where the server is; `LEFTFOLD_RESTART` kills it and starts it again.

use std::{
    cell::{Cell, RefCell},
    env,
    error::Error,
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use umadb_client::{AsyncUmaDbClient, ServingStatus, UmaDbClient};
use umadb_dcb::{
    DcbAppendCondition, DcbError, DcbEvent, DcbEventStoreAsync, DcbQuery, DcbQueryItem,
    TrackingInfo,
};
use uuid::Uuid;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

struct Flow {
    client: AsyncUmaDbClient,
    run: String,
}

#[tokio::main]
async fn main() -> Outcome {
    let url = env::var("LEFTFOLD_UMADB_URL").unwrap_or_else(|_| "http://127.0.0.1:2113".to_owned());
    let flow = Flow {
        client: UmaDbClient::new(url).connect_async().await?,
        run: Uuid::new_v4().to_string()[..8].to_owned(),
    };
    flow.opened().await?;
    println!("ok  an account is opened and read in both directions");
    flow.conditions().await?;
    println!("ok  a condition refuses what was decided on less than there is");
    let repeated = flow.repeated().await?;
    println!("ok  an append that is repeated under its condition is stored once");
    flow.ids().await?;
    println!("ok  ids are looked at only after the condition has failed, and a nil id is none");
    flow.kept().await?;
    println!("ok  events come back as they were");
    flow.tracked().await?;
    println!("ok  progress is noted with the events, and never goes back");
    flow.followed().await?;
    println!("ok  a subscription gives what is stored and goes on live");
    flow.killed().await?;
    println!(
        "ok  a server is killed under appends and a subscription: nothing is lost or told twice"
    );
    flow.still_there(repeated).await?;
    println!("ok  what was there before the server was killed still is");
    flow.healthy().await?;
    println!("ok  the server says that it is well");
    println!("the flow of UmaDB's Rust client is through");
    Ok(())
}

fn deposited(tag: &str, amount: i64) -> DcbEvent {
    DcbEvent::default()
        .event_type("Deposited")
        .tags([tag])
        .data(amount.to_string().into_bytes())
        .uuid(Uuid::new_v4())
        .metadata_entry("by", "ann")
}

fn of(tag: &str) -> DcbQuery {
    DcbQuery::new().item(DcbQueryItem::new().tags([tag]))
}

fn none_match(tag: &str, after: Option<u64>) -> Option<DcbAppendCondition> {
    Some(DcbAppendCondition {
        fail_if_events_match: of(tag),
        after,
    })
}

fn amount(event: &DcbEvent) -> i64 {
    String::from_utf8_lossy(&event.data)
        .parse()
        .expect("it is a number")
}

impl Flow {
    fn tag(&self, name: &str) -> String {
        format!("{name}:{}", self.run)
    }

    async fn amounts(&self, tag: &str, backwards: bool) -> Outcome<(Vec<i64>, Option<u64>)> {
        let mut read = self
            .client
            .read(Some(of(tag)), None, backwards, None)
            .await?;
        let mut all = Vec::new();
        while let Some(event) = read.next().await {
            all.push(amount(&event?.event));
        }
        Ok((all, read.head().await?))
    }

    async fn append(
        &self,
        event: &DcbEvent,
        condition: Option<DcbAppendCondition>,
    ) -> Result<u64, DcbError> {
        self.client
            .append(vec![event.clone()], condition, None)
            .await
    }

    async fn opened(&self) -> Outcome {
        let account = self.tag("account");
        let events = vec![deposited(&account, 100), deposited(&account, -30)];
        let last = self.client.append(events, None, None).await?;
        let (amounts, head) = self.amounts(&account, false).await?;
        assert_eq!(amounts.iter().sum::<i64>(), 70);
        assert!(head >= Some(last));
        assert_eq!(self.amounts(&account, true).await?.0, [-30, 100]);
        assert!(self.client.head().await? >= Some(last));
        // The position is part of what is read from it, in both directions.
        for (backwards, limit, expected) in [(false, None, [last]), (true, Some(1), [last])] {
            let read = self
                .client
                .read(Some(of(&account)), Some(last), backwards, limit);
            let events: Vec<_> = read.await?.collect().await;
            let positions: Result<Vec<u64>, DcbError> = events
                .into_iter()
                .map(|event| event.map(|event| event.position))
                .collect();
            assert_eq!(positions?, expected);
        }
        Ok(())
    }

    async fn conditions(&self) -> Outcome {
        let account = self.tag("account");
        let (_, after) = self.amounts(&account, false).await?;
        let withdraw = || deposited(&account, -10);
        self.append(&withdraw(), none_match(&account, after))
            .await?;
        let refused = self.append(&withdraw(), none_match(&account, after)).await;
        assert!(
            matches!(refused, Err(DcbError::IntegrityError(_))),
            "{refused:?}"
        );
        assert_eq!(self.amounts(&account, false).await?.0, [100, -30, -10]);
        Ok(())
    }

    /// Gives the event and its position.
    async fn repeated(&self) -> Outcome<(DcbEvent, u64)> {
        let tag = self.tag("repeated");
        let event = deposited(&tag, 5);
        let unique = || self.append(&event, none_match(&tag, None));
        let position = unique().await?;
        assert_eq!(unique().await?, position);
        assert_eq!(self.amounts(&tag, false).await?.0, [5]);
        let refused = self
            .append(&deposited(&tag, 7), none_match(&tag, None))
            .await;
        assert!(
            matches!(refused, Err(DcbError::IntegrityError(_))),
            "{refused:?}"
        );
        Ok((event, position))
    }

    async fn ids(&self) -> Outcome {
        let tag = self.tag("ids");
        let event = deposited(&tag, 1);
        let nil = deposited(&tag, 2).uuid(Uuid::nil());
        let first = self.append(&event, None).await?;
        assert_eq!(self.append(&event, None).await?, first + 1);
        let holds = none_match(&tag, Some(first + 1));
        assert_eq!(self.append(&event, holds).await?, first + 2);
        let twice = vec![event.clone(), event.clone()];
        assert_eq!(self.client.append(twice, None, None).await?, first + 4);
        assert_eq!(self.append(&nil, None).await?, first + 5);
        let bare = DcbEvent::default()
            .event_type("Deposited")
            .tags([tag.clone()])
            .data(b"3".to_vec());
        let without = vec![nil.clone(), nil.clone(), bare];
        assert_eq!(self.client.append(without, None, None).await?, first + 8);
        let read = self.client.read(Some(of(&tag)), None, false, None).await?;
        let events: Vec<_> = read.collect().await;
        let ids: Result<Vec<_>, DcbError> = events
            .into_iter()
            .map(|event| event.map(|event| event.event.uuid))
            .collect();
        let expected = [vec![event.uuid; 5], vec![nil.uuid; 3], vec![None]].concat();
        assert_eq!(ids?, expected);
        Ok(())
    }

    async fn kept(&self) -> Outcome {
        let event = DcbEvent::default()
            .event_type("Bytes")
            .tags([self.tag("kept"), "z".to_owned(), "a".to_owned()])
            .data(vec![0, 1, 2, 255])
            .uuid(Uuid::new_v4())
            .metadata_entry("by", "ann");
        let position = self.append(&event, None).await?;
        let query = DcbQuery::new().item(
            DcbQueryItem::new()
                .types(["Bytes"])
                .tags([self.tag("kept")]),
        );
        let mut read = self.client.read(Some(query), None, false, None).await?;
        let stored = read.next().await.ok_or("nothing was stored")??;
        assert_eq!(stored.position, position);
        let DcbEvent {
            event_type,
            tags,
            data,
            uuid,
            metadata,
        } = stored.event;
        assert_eq!((event_type, tags), (event.event_type, event.tags));
        assert_eq!(
            (data, uuid, metadata),
            (event.data, event.uuid, event.metadata)
        );
        Ok(())
    }

    async fn tracked(&self) -> Outcome {
        let (tag, source) = (self.tag("tracked"), self.tag("source"));
        let note = |position| TrackingInfo {
            source: source.clone(),
            position,
        };
        assert_eq!(self.client.get_tracking_info(&source).await?, None);
        let before = self.client.head().await?.unwrap_or(0);
        let first = self
            .client
            .append(vec![deposited(&tag, 1)], None, Some(note(7)))
            .await?;
        assert_eq!(first, before + 1);
        assert_eq!(self.client.head().await?, Some(first));
        let refused = self
            .client
            .append(vec![deposited(&tag, 2)], None, Some(note(7)))
            .await;
        assert!(
            matches!(refused, Err(DcbError::IntegrityError(_))),
            "{refused:?}"
        );
        assert_eq!(self.client.get_tracking_info(&source).await?, Some(7));
        assert_eq!(self.amounts(&tag, false).await?.0, [1]);
        Ok(())
    }

    async fn followed(&self) -> Outcome {
        let tag = self.tag("followed");
        let append = |amount| {
            self.client
                .append(vec![deposited(&tag, amount)], None, None)
        };
        append(1).await?;
        let mut subscription = self.client.subscribe(Some(of(&tag)), None).await?;
        let mut next = async || -> Outcome<i64> {
            let event = subscription
                .next()
                .await
                .ok_or("the subscription ended")??;
            Ok(amount(&event.event))
        };
        assert_eq!(next().await?, 1);
        append(2).await?;
        assert_eq!(next().await?, 2);
        Ok(())
    }

    async fn killed(&self) -> Outcome {
        let tag = self.tag("survivor");
        let writers: Vec<Writer> = (0..4).map(|number| Writer::new(&tag, number)).collect();
        let following = Following::default();
        let stopped = Cell::new(false);
        let each_has = |count| writers.iter().all(|writer| writer.count() >= count);
        let kill = async {
            until(|| each_has(25) && following.has(1)).await;
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
        let check = async {
            tokio::join!(kill, writing).0?;
            let acknowledged = writers.iter().map(Writer::count).sum();
            until(|| following.has(acknowledged)).await;
            Outcome::Ok(())
        };
        tokio::select! {
            checked = check => checked?,
            () = following.run(self, &tag) => {}
        }
        let stored = self.amounts(&tag, false).await?.0;
        assert_eq!(*following.amounts.borrow(), stored);
        assert_eq!(stored.len(), writers.iter().map(Writer::count).sum());
        for writer in &writers {
            let own = self.amounts(&writer.tag, false).await?.0;
            assert_eq!(own, *writer.acknowledged.borrow());
        }
        if env::var("LEFTFOLD_RESTART").is_ok() {
            let interrupted = writers.iter().filter(|writer| writer.failures.get() > 0);
            assert!(interrupted.count() > 1);
            assert!(following.opened.get() > 1);
        }
        Ok(())
    }

    async fn still_there(&self, (event, position): (DcbEvent, u64)) -> Outcome {
        assert_eq!(
            self.amounts(&self.tag("account"), false).await?.0,
            [100, -30, -10]
        );
        let tag = self.tag("repeated");
        let again = self.append(&event, none_match(&tag, None));
        assert_eq!(again.await?, position);
        let progress = self.client.get_tracking_info(&self.tag("source")).await?;
        assert_eq!(progress, Some(7));
        Ok(())
    }

    async fn healthy(&self) -> Outcome {
        let status = self.client.check_health("umadb.v1.DCB").await?;
        assert_eq!(status, ServingStatus::Serving);
        Ok(())
    }
}

/// Appends one event after the other, and the same one again until it is acknowledged.
struct Writer {
    number: i64,
    shared: String,
    tag: String,
    acknowledged: RefCell<Vec<i64>>,
    failures: Cell<usize>,
}

impl Writer {
    fn new(shared: &str, number: i64) -> Self {
        Self {
            number,
            shared: shared.to_owned(),
            tag: format!("{shared}:{number}"),
            acknowledged: RefCell::default(),
            failures: Cell::default(),
        }
    }

    fn count(&self) -> usize {
        self.acknowledged.borrow().len()
    }

    async fn run(&self, flow: &Flow, stopped: &Cell<bool>) {
        while !stopped.get() {
            // Amounts tell the writers apart.
            let amount = self.count() as i64 * 10 + self.number;
            let own = format!("{}:{amount}", self.tag);
            let tags = [self.tag.clone(), self.shared.clone(), own.clone()];
            let event = deposited(&self.tag, amount).tags(tags);
            // The outcome is unknown. If the event was stored, its own condition fails, and its id identifies it.
            while flow.append(&event, none_match(&own, None)).await.is_err() {
                self.failures.set(self.failures.get() + 1);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            self.acknowledged.borrow_mut().push(amount);
        }
    }
}

/// What a subscription brought, and how often it was opened.
#[derive(Default)]
struct Following {
    amounts: RefCell<Vec<i64>>,
    opened: Cell<usize>,
}

impl Following {
    /// This client ends a subscription with an error when its server is gone, and opens no new one, so the program does,
    /// behind the last position it was given.
    async fn run(&self, flow: &Flow, tag: &str) {
        let mut after = None;
        loop {
            if let Ok(mut subscription) = flow.client.subscribe(Some(of(tag)), after).await {
                self.opened.set(self.opened.get() + 1);
                while let Some(Ok(event)) = subscription.next().await {
                    after = Some(event.position);
                    self.amounts.borrow_mut().push(amount(&event.event));
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn has(&self, count: usize) -> bool {
        self.amounts.borrow().len() >= count
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
