//! Connecting, and what is said when it fails.
//!
//! **Owns:** addresses, strangers that answer, closing. **Does not know:** lost connections.

use std::{sync::Arc, time::Duration};

use leftfold_client::{Client, ClientOptions, ConnectError, Credentials};
use leftfold_model::{Append, ContentType, ExpectedRevision, NewEvent, Position, StreamName};
use leftfold_server::{Server, Settings, StartingServer};
use leftfold_store::{AppendError, Delete, EventStore, MemoryStore, ReadError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::running::{PATIENCE, in_time, quick, serve};

#[tokio::test]
async fn what_the_store_promises_is_known_at_once() {
    let memory = MemoryStore::new();
    let promised = memory.capabilities();
    let address = serve(Arc::new(memory), &[]).await;
    let client = Client::connect(&address).await.unwrap();
    assert_eq!(client.capabilities(), promised);
    assert!(format!("{client:?}").contains(&address));
}

#[tokio::test]
async fn nobody_there_is_told_with_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("leftfold://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = in_time(Client::connect(&address)).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn credentials_are_not_sent_to_another_machine_in_clear_text() {
    // Reserved for documentation: nobody answers there.
    let connect = async |address: &str| {
        let options = ClientOptions::default()
            .with_connect_timeout(Duration::from_millis(50))
            .with_credentials(Credentials::password("ann", "correct horse"));
        in_time(Client::connect_with(address, options))
            .await
            .unwrap_err()
    };
    let refused = connect("leftfold://192.0.2.1:2113").await;
    assert!(
        matches!(refused, ConnectError::Address { .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("?tls=true"), "{refused}");
    for address in [
        "leftfold://192.0.2.1:2113?tls=true",
        "leftfold://192.0.2.1:2113?tls=false",
    ] {
        let tried = connect(address).await;
        assert!(
            matches!(tried, ConnectError::Unreachable { .. }),
            "{tried:?}"
        );
    }
}

#[tokio::test]
async fn a_server_of_another_kind_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("leftfold://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            socket
                .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
        }
    });
    let error = in_time(Client::connect(&address)).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::ProtocolMismatch { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_is_neither_waited_for_nor_taken_for_one_of_another_kind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("leftfold://{}", listener.local_addr().unwrap());
    let options = ClientOptions::default().with_connect_timeout(Duration::from_millis(50));
    let connecting = Client::connect_with(&address, options);
    let error = in_time(connecting).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotReady { .. }), "{error:?}");
    drop(listener);
}

/// A server that answers and has no store yet.
async fn starting() -> (StartingServer, String) {
    let mut settings = Settings::default();
    settings.set("listen", "127.0.0.1:0").unwrap();
    let server = Server::start(settings).await.unwrap();
    let address = format!("leftfold://{}", server.address());
    (server, address)
}

/// The type of a frame of HTTP/2 that begins a response.
const HEADERS: u8 = 1;

/// Forwards connections to a server, and tells of each response that begins.
async fn forward_and_tell(server: String) -> (String, mpsc::UnboundedReceiver<()>) {
    let server = server.replace("leftfold://", "");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("leftfold://{}", listener.local_addr().unwrap());
    let (begun, responses) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut from_client, mut to_client) = client.into_split();
            let server = TcpStream::connect(&server).await.unwrap();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
            let begun = begun.clone();
            tokio::spawn(async move {
                let mut header = [0; 9];
                while from_server.read_exact(&mut header).await.is_ok() {
                    let length = header[..3]
                        .iter()
                        .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                    let mut frame = header.to_vec();
                    let mut rest = (&mut from_server).take(length);
                    rest.read_to_end(&mut frame).await.unwrap();
                    if to_client.write_all(&frame).await.is_err() {
                        return;
                    }
                    if header[3] == HEADERS {
                        let _ = begun.send(());
                    }
                }
            });
        }
    });
    (address, responses)
}

#[tokio::test]
async fn a_server_that_opens_its_store_is_waited_for() {
    let (server, address) = starting().await;
    let (address, mut responses) = forward_and_tell(address).await;
    let options = quick().with_connect_timeout(PATIENCE);
    let connecting = tokio::spawn(async move { Client::connect_with(&address, options).await });
    // The server has responded twice that it is starting.
    in_time(responses.recv()).await.unwrap();
    in_time(responses.recv()).await.unwrap();
    let server = server.open(Arc::new(MemoryStore::new())).await.unwrap();
    tokio::spawn(server.run(std::future::pending()));
    let client = in_time(connecting).await.unwrap().unwrap();
    assert_eq!(client.head().await.unwrap(), Position::START);
}

#[tokio::test]
async fn a_server_that_does_not_become_ready_in_time_is_told_apart_from_one_of_another_kind() {
    let (server, address) = starting().await;
    let options = quick().with_connect_timeout(Duration::from_millis(300));
    let error = in_time(Client::connect_with(&address, options)).await;
    let error = error.unwrap_err();
    assert!(matches!(error, ConnectError::NotReady { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
    drop(server);
}

#[tokio::test]
async fn a_closed_client_refuses_and_leaves_the_server_as_it_is() {
    let address = serve(Arc::new(MemoryStore::new()), &[]).await;
    let client = Client::connect(&address).await.unwrap();
    client.close().await.unwrap();
    client.close().await.unwrap();
    let refused = client.head().await.unwrap_err();
    assert!(
        matches!(refused, ReadError::Unavailable { .. }),
        "{refused:?}"
    );
    let another = Client::connect(&address).await.unwrap();
    assert_eq!(another.head().await.unwrap(), Position::START);
}

/// Forwards the first connection to a server and lets every later one wait.
async fn forward_the_first(server: String) -> String {
    let server = server.replace("leftfold://", "");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("leftfold://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        let mut silent = Vec::new();
        while let Ok((client, _)) = listener.accept().await {
            silent.push(client);
        }
    });
    address
}

#[tokio::test]
async fn a_deletion_takes_the_connection_that_just_answered() {
    let address = forward_the_first(serve(Arc::new(MemoryStore::new()), &[]).await).await;
    let options = ClientOptions::default()
        .with_connections(2)
        .with_write_timeout(Duration::from_secs(10));
    let client = Client::connect_with(&address, options).await.unwrap();
    let stream: StreamName = "account-1".parse().unwrap();
    // It is refused, because there is no such stream: it arrived.
    let refused = in_time(client.delete(Delete::stream(stream, ExpectedRevision::Any))).await;
    assert!(
        !matches!(refused, Err(AppendError::OutcomeUnknown { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn closing_ends_beside_an_append_that_is_polled_no_more() {
    let address = serve(Arc::new(MemoryStore::new()), &[]).await;
    let options = ClientOptions::default()
        .with_in_flight_appends_max(1)
        .with_write_timeout(Duration::from_millis(500));
    let client = Client::connect_with(&address, options).await.unwrap();
    let append = || {
        let event = NewEvent::new("Noted".parse().unwrap(), ContentType::Binary, Vec::new());
        let stream = "notes".parse().unwrap();
        Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap()
    };
    let mut parked = client.append(append());
    assert!(futures_util::poll!(&mut parked).is_pending());
    in_time(client.close()).await.unwrap();
    drop(parked);
}
