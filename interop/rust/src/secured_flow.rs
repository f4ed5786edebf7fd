//! What programs in Rust meet at a server with TLS and users, through published clients.
//!
//! **Owns:** the steps; each says what it expects, and the first surprise ends the flow. **Does not know:** the server.
//! **Invariants:** `LEFTFOLD_ADDRESS`, `LEFTFOLD_CA_FILE`, `LEFTFOLD_KEY` and `LEFTFOLD_NARROW_KEY` describe the server;
//! see server.sh.

use std::{env, error::Error};

use kurrentdb::{
    AppendToStreamOptions, Client, EventData, ReadAllOptions, ReadStream, ReadStreamOptions,
    ResolvedEvent, StreamPosition, SubscribeToAllOptions,
};
use serde_json::{Value, json};
use umadb_client::UmaDbClient;
use umadb_dcb::{DcbEvent, DcbEventStoreAsync};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let (ann, bob) = (user("ann")?, user("bob")?);
    append(&ann, "secret-1", 7).await?;
    append(&ann, "account-1", 1).await?;
    assert_eq!(amounts(&ann, "secret-1").await?, [7]);
    done("a user with the right appends and reads");

    denied(amounts(&bob, "secret-1").await);
    denied(append(&bob, "secret-1", 8).await);
    let streams = streams(&bob).await?;
    assert!(streams.contains(&"account-1".to_owned()), "{streams:?}");
    assert!(!streams.contains(&"secret-1".to_owned()), "{streams:?}");
    done("a user without the right is denied, and reads of everything leave out what is hidden");

    followed(&bob).await?;
    done("a subscription gives what may be read");

    denied(amounts(&connect("ann", "wrong-password")?, "account-1").await);
    done("a wrong password is refused");

    let (shop, tenant) = (
        connect("shop", &env::var("LEFTFOLD_KEY")?)?,
        connect("tenant", &env::var("LEFTFOLD_NARROW_KEY")?)?,
    );
    append(&shop, "account-2", 2).await?;
    assert_eq!(amounts(&shop, "account-2").await?, [2]);
    denied(append(&tenant, "account-2", 3).await);
    let streams = self::streams(&tenant).await?;
    assert!(
        !streams.iter().any(|name| name.starts_with("account-")),
        "{streams:?}"
    );
    done("an API key is the password of any login, within its rights");

    by_umadbs_client().await?;
    done("an API key is that of UmaDB's client, within its rights");
    println!("the flow of the Rust clients with TLS and users is through");
    Ok(())
}

fn done(what: &str) {
    println!("ok  {what}");
}

fn connect(login: &str, password: &str) -> Outcome<Client> {
    let (address, ca) = (env::var("LEFTFOLD_ADDRESS")?, env::var("LEFTFOLD_CA_FILE")?);
    let url = format!("kurrentdb://{login}:{password}@{address}?tls=true&tlsCaFile={ca}");
    Ok(Client::new(url.parse()?)?)
}

fn user(login: &str) -> Outcome<Client> {
    connect(login, &format!("password-of-{login}"))
}

async fn append(client: &Client, stream: &str, amount: i64) -> kurrentdb::Result<()> {
    let event = EventData::json("Opened", &json!({ "amount": amount })).expect("it is JSON");
    let options = AppendToStreamOptions::default();
    let appended = client.append_to_stream(stream, &options, vec![event]).await;
    appended.map(drop)
}

async fn collect(mut events: ReadStream) -> kurrentdb::Result<Vec<ResolvedEvent>> {
    let mut collected = Vec::new();
    while let Some(event) = events.next().await? {
        collected.push(event);
    }
    Ok(collected)
}

async fn amounts(client: &Client, stream: &str) -> kurrentdb::Result<Vec<i64>> {
    let options = ReadStreamOptions::default();
    let events = collect(client.read_stream(stream, &options).await?).await?;
    let amount = |event: ResolvedEvent| {
        let json: Value = event.get_original_event().as_json().expect("it is JSON");
        json["amount"].as_i64().expect("a number")
    };
    Ok(events.into_iter().map(amount).collect())
}

async fn streams(client: &Client) -> kurrentdb::Result<Vec<String>> {
    let events = collect(client.read_all(&ReadAllOptions::default()).await?).await?;
    let names = events.iter().map(|event| event.get_original_stream_id());
    Ok(names.map(str::to_owned).collect())
}

/// This client has one error for wrong credentials and for missing rights.
fn denied<T: std::fmt::Debug>(outcome: kurrentdb::Result<T>) {
    assert!(
        matches!(outcome, Err(kurrentdb::Error::AccessDenied)),
        "{outcome:?}"
    );
}

/// Follows everything until the event that the user may read.
async fn followed(client: &Client) -> Outcome {
    let options = SubscribeToAllOptions::default().position(StreamPosition::Start);
    let mut events = client.subscribe_to_all(&options).await;
    loop {
        let event = events.next().await?;
        let stream = event.get_original_stream_id();
        assert_ne!(stream, "secret-1");
        if stream == "account-1" {
            return Ok(());
        }
    }
}

async fn by_umadbs_client() -> Outcome {
    let url = format!("https://{}", env::var("LEFTFOLD_ADDRESS")?);
    let with_key = async |key: &str| {
        let client = UmaDbClient::new(url.clone()).ca_path(env::var("LEFTFOLD_CA_FILE")?);
        let client = client.api_key(key.to_owned()).connect_async().await?;
        Ok::<_, Box<dyn Error>>(client)
    };
    let event = || {
        let event = DcbEvent::default().event_type("Opened");
        event.tags(["tenant:2"]).data(b"9".to_vec())
    };
    let shop = with_key(&env::var("LEFTFOLD_KEY")?).await?;
    let position = shop.append(vec![event()], None, None).await?;
    assert!(position > 0);
    let tenant = with_key(&env::var("LEFTFOLD_NARROW_KEY")?).await?;
    let refused = tenant.append(vec![event()], None, None).await;
    assert!(refused.is_err(), "{refused:?}");
    let wrong = with_key("lfk_wrong").await?;
    let refused = wrong.append(vec![event()], None, None).await;
    assert!(refused.is_err(), "{refused:?}");
    Ok(())
}
