//! What a program in Rust meets at a server with TLS and users, through the published clients.
//!
//! **Owns:** the steps; each says what it expects, and the first surprise ends the flow. **Does not know:** the server.
//! **Invariants:** `LEFTFOLD_ADDRESS`, `LEFTFOLD_CA_FILE`, `LEFTFOLD_KEY` and `LEFTFOLD_NARROW_KEY` describe the server.

use std::{env, error::Error};

use futures::StreamExt;
use kurrentdb::{AppendToStreamOptions, Client, EventData, ReadAllOptions, ReadStreamOptions};
use umadb_client::{AsyncUmaDbClient, UmaDbClient};
use umadb_dcb::{DcbError, DcbEvent, DcbEventStoreAsync, DcbQuery, DcbQueryItem};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn connect(login: &str, password: &str) -> Outcome<Client> {
    let (address, ca) = (env::var("LEFTFOLD_ADDRESS")?, env::var("LEFTFOLD_CA_FILE")?);
    let url = format!("kurrentdb://{login}:{password}@{address}?tls=true&tlsCaFile={ca}");
    Ok(Client::new(url.parse()?)?)
}

fn user(login: &str) -> Outcome<Client> {
    connect(login, &format!("password-of-{login}"))
}

async fn put(client: &Client, stream: &str, data: &'static str) -> kurrentdb::Result<()> {
    let event = EventData::binary("Opened", data.into());
    let appended = client.append_to_stream(stream, &AppendToStreamOptions::default(), event);
    appended.await.map(drop)
}

async fn data(client: &Client, stream: &str) -> kurrentdb::Result<Vec<String>> {
    let mut read = client
        .read_stream(stream, &ReadStreamOptions::default())
        .await?;
    let mut found = Vec::new();
    while let Some(resolved) = read.next().await? {
        let event = resolved.get_original_event();
        found.push(String::from_utf8_lossy(&event.data).into_owned());
    }
    Ok(found)
}

async fn streams(client: &Client) -> kurrentdb::Result<Vec<String>> {
    let mut read = client.read_all(&ReadAllOptions::default()).await?;
    let mut found = Vec::new();
    while let Some(resolved) = read.next().await? {
        found.push(resolved.get_original_event().stream_id.clone());
    }
    Ok(found)
}

#[track_caller]
fn denied<T>(outcome: kurrentdb::Result<T>) {
    assert!(matches!(outcome, Err(kurrentdb::Error::AccessDenied)));
}

#[tokio::main]
async fn main() -> Outcome {
    let (ann, bob) = (user("ann")?, user("bob")?);
    put(&ann, "secret-1", "7").await?;
    put(&ann, "account-1", "1").await?;
    assert_eq!(data(&ann, "secret-1").await?, ["7"]);
    println!("ok  a user with the right appends and reads");

    denied(data(&bob, "secret-1").await);
    denied(put(&bob, "secret-1", "8").await);
    let found = streams(&bob).await?;
    assert!(found.iter().any(|name| name == "account-1"), "{found:?}");
    assert!(found.iter().all(|name| name != "secret-1"), "{found:?}");
    println!("ok  a user without the right is denied, and reads leave out what is hidden");

    // This client has one error for wrong credentials and for missing rights.
    denied(data(&connect("ann", "wrong-password")?, "account-1").await);
    println!("ok  a wrong password is refused");

    let shop = connect("shop", &env::var("LEFTFOLD_KEY")?)?;
    let tenant = connect("tenant", &env::var("LEFTFOLD_NARROW_KEY")?)?;
    put(&shop, "account-2", "2").await?;
    denied(put(&tenant, "account-2", "3").await);
    let found = streams(&tenant).await?;
    assert!(
        found.iter().all(|name| !name.starts_with("account-")),
        "{found:?}"
    );
    println!("ok  an API key is the password of any login, within its rights");

    umadb().await?;
    println!("the flow of the Rust clients with TLS and users is through");
    Ok(())
}

async fn umadb_client(key: &str) -> Outcome<AsyncUmaDbClient> {
    let url = format!("https://{}", env::var("LEFTFOLD_ADDRESS")?);
    let client = UmaDbClient::new(url).ca_path(env::var("LEFTFOLD_CA_FILE")?);
    Ok(client.api_key(key.to_owned()).connect_async().await?)
}

fn tagged(tag: &str) -> DcbEvent {
    DcbEvent {
        event_type: "Opened".to_owned(),
        data: tag.as_bytes().to_vec(),
        tags: vec![tag.to_owned()],
        ..DcbEvent::default()
    }
}

async fn tags(client: &AsyncUmaDbClient, query: Option<DcbQuery>) -> Result<Vec<String>, DcbError> {
    let mut read = client.read(query, None, false, None).await?;
    let mut found = Vec::new();
    while let Some(event) = read.next().await {
        found.extend(event?.event.tags);
    }
    Ok(found)
}

async fn umadb() -> Outcome {
    let of = |tag: &str| Some(DcbQuery::new().item(DcbQueryItem::new().tags([tag.to_owned()])));
    let client = umadb_client(&env::var("LEFTFOLD_KEY")?).await?;
    let events = vec![tagged("tenant:1"), tagged("tenant:2")];
    client.append(events, None, None).await?;
    assert_eq!(tags(&client, of("tenant:2")).await?, ["tenant:2"]);
    println!("ok  UmaDB's client appends and reads by its key over TLS");

    let narrow = umadb_client(&env::var("LEFTFOLD_NARROW_KEY")?).await?;
    assert_eq!(tags(&narrow, None).await?, ["tenant:1"]);
    assert!(tags(&narrow, of("tenant:2")).await?.is_empty());
    assert!(
        narrow
            .append(vec![tagged("tenant:1")], None, None)
            .await
            .is_err()
    );
    println!("ok  a key with a tag reads the events of its tag and no more");

    let wrong = umadb_client(&format!("lfk_{}", "0".repeat(43))).await?;
    assert!(tags(&wrong, None).await.is_err());
    println!("ok  a wrong key is refused");
    Ok(())
}
