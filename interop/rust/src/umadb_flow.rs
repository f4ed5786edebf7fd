//! What a program in Rust does with an event store, step by step, through UmaDB's published client.
//!
//! **Owns:** the steps; each says what it expects, and the first surprise ends the flow. **Does not know:** the server.
//! **Invariants:** `LEFTFOLD_UMADB_URL` says where the server is; `LEFTFOLD_RESTART` kills it and starts it again.

use std::{env, error::Error, time::Duration};

use futures::StreamExt;
use umadb_client::{AsyncUmaDbClient, UmaDbClient};
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
    flow.repeated().await?;
    println!("ok  an append that is repeated is stored once");
    flow.tracked().await?;
    println!("ok  progress is noted with the events, and never goes back");
    flow.followed().await?;
    println!("ok  a subscription gives what is stored and goes on live");
    flow.survives().await?;
    println!(
        "ok  a server that is killed loses nothing it acknowledged, and the client comes back"
    );
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

    async fn opened(&self) -> Outcome {
        let account = self.tag("account");
        let events = vec![deposited(&account, 100), deposited(&account, -30)];
        let last = self.client.append(events, None, None).await?;
        let (amounts, head) = self.amounts(&account, false).await?;
        assert_eq!(amounts.iter().sum::<i64>(), 70);
        assert!(head >= Some(last));
        assert_eq!(self.amounts(&account, true).await?.0, [-30, 100]);
        assert!(self.client.head().await? >= Some(last));
        Ok(())
    }

    async fn conditions(&self) -> Outcome {
        let account = self.tag("account");
        let (_, after) = self.amounts(&account, false).await?;
        let condition = DcbAppendCondition {
            fail_if_events_match: of(&account),
            after,
        };
        let withdraw = || vec![deposited(&account, -10)];
        self.client
            .append(withdraw(), Some(condition.clone()), None)
            .await?;
        let refused = self.client.append(withdraw(), Some(condition), None).await;
        assert!(
            matches!(refused, Err(DcbError::IntegrityError(_))),
            "{refused:?}"
        );
        assert_eq!(self.amounts(&account, false).await?.0, [100, -30, -10]);
        Ok(())
    }

    async fn repeated(&self) -> Outcome {
        let tag = self.tag("repeated");
        let event = deposited(&tag, 5);
        let condition = DcbAppendCondition {
            fail_if_events_match: of(&tag),
            after: None,
        };
        let once = || {
            self.client
                .append(vec![event.clone()], Some(condition.clone()), None)
        };
        assert_eq!(once().await?, once().await?);
        assert_eq!(self.amounts(&tag, false).await?.0, [5]);
        Ok(())
    }

    async fn tracked(&self) -> Outcome {
        let (tag, source) = (self.tag("tracked"), self.tag("source"));
        let note = |position| TrackingInfo {
            source: source.clone(),
            position,
        };
        assert_eq!(self.client.get_tracking_info(&source).await?, None);
        self.client
            .append(vec![deposited(&tag, 1)], None, Some(note(7)))
            .await?;
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

    async fn survives(&self) -> Outcome {
        let tag = self.tag("survivor");
        for amount in 0..100 {
            if amount == 50
                && let Ok(restart) = env::var("LEFTFOLD_RESTART")
            {
                let mut command = tokio::process::Command::new("sh");
                assert!(command.args(["-c", &restart]).status().await?.success());
            }
            let event = deposited(&tag, amount);
            // Whether it was stored is not known; the same event again is stored once.
            while self
                .client
                .append(vec![event.clone()], None, None)
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let expected: Vec<i64> = (0..100).collect();
        assert_eq!(self.amounts(&tag, false).await?.0, expected);
        Ok(())
    }
}
