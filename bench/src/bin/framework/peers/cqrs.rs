//! `cqrs-es` on its store in memory.
//!
//! **Owns:** the bank in its words. **Does not know:** the other sides.
//! **Invariants:** its store keeps events as values, without encoding them; that is its advantage, and left to it.

use cqrs_es::{Aggregate, CqrsFramework, DomainEvent, event_sink::EventSink, mem_store::MemStore};
use serde::{Deserialize, Serialize};

use crate::bank::account_of;

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum PeerEvent {
    Deposited { cents: u64 },
}

impl DomainEvent for PeerEvent {
    fn event_type(&self) -> String {
        "MoneyDeposited".to_owned()
    }
    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
pub(crate) struct Refused;

pub(crate) enum Command {
    Deposit(u64),
    /// A history of so many deposits.
    Fill(u64),
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct PeerAccount {
    balance: u64,
}

impl Aggregate for PeerAccount {
    const TYPE: &'static str = "account";
    type Command = Command;
    type Event = PeerEvent;
    type Error = Refused;
    type Services = ();

    async fn handle(
        &mut self,
        command: Command,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Refused> {
        match command {
            Command::Deposit(cents) => sink.write(PeerEvent::Deposited { cents }, self).await,
            Command::Fill(events) => {
                for _ in 0..events {
                    sink.write(PeerEvent::Deposited { cents: 1 }, self).await;
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: PeerEvent) {
        let PeerEvent::Deposited { cents } = event;
        self.balance += cents;
    }
}

pub(crate) type Peer = CqrsFramework<PeerAccount, MemStore<PeerAccount>>;

pub(crate) async fn filled(histories: &[u64]) -> anyhow::Result<Peer> {
    let peer = CqrsFramework::new(MemStore::default(), Vec::new(), ());
    for (account, events) in histories.iter().enumerate() {
        peer.execute(&account.to_string(), Command::Fill(*events))
            .await?;
    }
    Ok(peer)
}

pub(crate) async fn deposit(peer: &Peer, command: u64) -> anyhow::Result<()> {
    let account = account_of(command).to_string();
    peer.execute(&account, Command::Deposit(1)).await?;
    Ok(())
}
