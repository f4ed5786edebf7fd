//! What a server answers while its store is being opened.

use std::sync::Arc;

use leftfold_proto::leftfold::v1::{HeadRequest, store_client::StoreClient};
use leftfold_server::{Server, Settings};
use leftfold_store::MemoryStore;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    sync::oneshot,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::certificates::Authority;

async fn get(address: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn head(address: &str) -> Code {
    let channel: Channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    match StoreClient::new(channel).head(HeadRequest {}).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

#[tokio::test]
async fn a_server_that_starts_lives_and_is_not_ready_until_its_store_is_open() {
    let mut settings = Settings::default();
    settings.set("listen", "127.0.0.1:0").unwrap();
    let starting = Server::start(settings).await.unwrap();
    let address = starting.address().to_string();
    assert!(
        get(&address, "/health/live")
            .await
            .starts_with("HTTP/1.1 200")
    );
    for path in ["/health/ready", "/api/v1/events", "/info"] {
        let answer = get(&address, path).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("retry-after: 1"), "{answer}");
        assert!(answer.contains("starting"), "{answer}");
    }
    assert_eq!(head(&address).await, Code::Unavailable);

    let server = starting.open(Arc::new(MemoryStore::new())).await.unwrap();
    assert_eq!(server.address().to_string(), address);
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    assert!(
        get(&address, "/health/ready")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert_eq!(head(&address).await, Code::Ok);
    drop(stop);
    ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn every_client_is_told_that_the_server_starts_however_many_stay_connected() {
    let mut settings = Settings::default();
    settings.set("listen", "127.0.0.1:0").unwrap();
    let starting = Server::start(settings).await.unwrap();
    let url = format!("http://{}", starting.address());
    let channels: Vec<Channel> = (0..100)
        .map(|_| Endpoint::from_shared(url.clone()).unwrap().connect_lazy())
        .collect();
    let heads = channels.iter().map(|channel| {
        let mut client = StoreClient::new(channel.clone());
        async move { client.head(HeadRequest {}).await.unwrap_err() }
    });
    for status in futures_util::future::join_all(heads).await {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("starting"), "{status:?}");
    }
    drop(starting);
}

#[tokio::test]
async fn probes_over_tls_are_answered_too_while_a_server_starts() {
    let authority = Authority::new();
    authority.issue("server", "leftfold");
    let mut settings = Settings::default();
    for (name, value) in [
        ("listen", "127.0.0.1:0".to_owned()),
        ("tls_certificate_file", authority.setting("server.crt")),
        ("tls_key_file", authority.setting("server.key")),
    ] {
        settings.set(name, &value).unwrap();
    }
    let starting = Server::start(settings).await.unwrap();
    let port = starting.address().port();
    for (path, status) in [("live", "200"), ("ready", "503")] {
        let ran = Command::new("curl")
            .args(["--silent", "--cacert", &authority.setting("ca.crt")])
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
            .args(["--write-out", "%{http_code}", "--output", "/dev/null"])
            .arg(format!("https://localhost:{port}/health/{path}"))
            .output()
            .await
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), status, "{ran:?}");
    }
    drop(starting);
}
