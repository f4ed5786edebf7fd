//! Messages about deposits to another system: the chapter on messages.

use leftfold::{
    JetStream, Outgoing, Recorded, Store, Webhook,
    async_nats::{self, jetstream},
    model::Position,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    account::{AccountEvent, BankAccount},
    nats_server::NatsServer,
};

struct Deposits;

impl Outgoing for Deposits {
    type Event = AccountEvent;
    const NAME: &'static str = "deposits"; // the checkpoint is stored under it
    const SOURCE: &'static str = "/bank";

    fn message(&self, event: &Recorded<AccountEvent>) -> Option<(String, Value)> {
        match event.event {
            AccountEvent::Deposited { cents } => {
                let data = json!({ "account": event.aggregate_id(), "cents": cents });
                Some(("bank.deposit".to_owned(), data))
            }
            AccountEvent::Withdrawn { .. } => None,
        }
    }
}

#[tokio::test]
async fn a_deposit_is_told_to_another_system() -> Result<(), Box<dyn std::error::Error>> {
    let receiver = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/deposits", receiver.local_addr()?);
    let received = tokio::spawn(async move {
        let (mut connection, _) = receiver.accept().await?;
        let mut request = vec![0; 4096];
        let bytes = connection.read(&mut request).await?;
        let answer = b"HTTP/1.1 204 Taken\r\nconnection: close\r\n\r\n";
        connection.write_all(answer).await?;
        request.truncate(bytes);
        std::io::Result::Ok(String::from_utf8_lossy(&request).into_owned())
    });
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();

    let webhook = Webhook::to(&address)?.signed_by(b"a secret of the two of us");
    let deliveries = store.deliver(Deposits, webhook).parallel(8).spawn();

    accounts.execute("7f3", |a| a.deposit(100)).await?;
    deliveries.wait_for(Position::new(1)).await?;
    let request = received.await??;
    assert!(request.starts_with("POST /deposits"), "{request}");
    deliveries.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_deposit_is_stored_by_a_broker() -> Result<(), Box<dyn std::error::Error>> {
    let server = NatsServer::start();
    let address = server.address();
    let context = jetstream::new(async_nats::connect(&address).await?);
    let mut stream = context
        .create_stream(jetstream::stream::Config {
            name: "BANK".into(),
            subjects: vec!["bank.>".into()],
            ..Default::default()
        })
        .await?;
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();

    let client = async_nats::connect(&address).await?;
    let broker = JetStream::open(jetstream::new(client), "BANK", "bank").await?;
    let deliveries = store.deliver(Deposits, broker).parallel(8).spawn();

    accounts.execute("7f3", |a| a.deposit(100)).await?;
    deliveries.wait_for(Position::new(1)).await?;
    assert_eq!(stream.info().await?.state.messages, 1);
    deliveries.stop().await?;
    Ok(())
}
