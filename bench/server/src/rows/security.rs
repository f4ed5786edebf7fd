//! What TLS, keys and the guard cost, and what an attacker costs others.
//!
//! **Owns:** the rows of one server with and without them. **Does not know:** how rights are decided.
//! **Invariants:** both sides of a row have one client, Leftfold's own, and logs of the same events; no peer stands here.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    task::AbortHandle,
    time::interval,
};

use crate::{
    closed::{self, Work},
    event::EVENTS_PER_TAG,
    outcome::Outcome,
    plan::Plan,
    report::Report,
    server::{Access, Kind},
    wire::{Wire, leftfold::connect_to},
};

use super::{
    Side, appends, connections, counted, in_turn, start,
    work::{Empty, Load, Loading, ReadingAll},
};

const LOADERS: u64 = 4;
/// Wrong passwords per second of an attack.
const WRONG_PASSWORDS: u32 = 200;
/// The sides of a row: the measured one first, so that the ratio is its share of the plain one.
const SECURED: [(Kind, Wire); 2] = [
    (Kind::LeftfoldSecured, Wire::Leftfold),
    (Kind::Leftfold, Wire::Leftfold),
];
const GUARDED: [(Kind, Wire); 2] = [
    (Kind::LeftfoldGuarded, Wire::Leftfold),
    (Kind::Leftfold, Wire::Leftfold),
];

pub(crate) async fn security(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    for callers in plan.choose(&[1, 8], 8) {
        let name = format!("security: empty call, {}", counted(callers, "caller"));
        row(plan, report, &name, &SECURED, async |side| {
            closed::run(empty(side, callers).await?, Some(plan.timing), &side.server).await
        })
        .await?;
    }
    for callers in plan.choose(&[1, 8], 8) {
        let name = format!("security: {} x 1", counted(callers, "writer"));
        row(plan, report, &name, &SECURED, async |side| {
            let works = appends(plan, side, callers).await?;
            closed::run(works, Some(plan.timing), &side.server).await
        })
        .await?;
    }
    let name = "security: a new connection and its first call";
    row(plan, report, name, &SECURED, async |side| {
        let work = Connecting {
            port: side.server.port,
            access: side.server.access.clone(),
        };
        closed::run(vec![Box::new(work)], Some(plan.timing), &side.server).await
    })
    .await?;
    whole_log(plan, report).await?;
    attacked(plan, report).await
}

async fn row(
    plan: &Plan,
    report: &Report,
    name: &str,
    sides: &[(Kind, Wire)],
    measure: impl AsyncFn(&Side) -> anyhow::Result<Outcome>,
) -> anyhow::Result<()> {
    if plan.wants(name) {
        let sides = start(plan, sides).await?;
        report.row(name, &in_turn(plan.runs, &sides, measure).await?, None);
    }
    Ok(())
}

async fn empty(side: &Side, callers: u64) -> anyhow::Result<Vec<Box<dyn Work>>> {
    let connections = connections(side, callers).await?.into_iter();
    Ok(connections
        .map(|connection| Box::new(Empty(connection)) as Box<dyn Work>)
        .collect())
}

/// A new connection and a call on it, again and again.
struct Connecting {
    port: u16,
    access: Option<Access>,
}

impl Work for Connecting {
    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async {
            let connection = connect_to(self.port, self.access.as_ref()).await?;
            connection.head().await?;
            Ok(Some(1))
        })
    }
}

/// One read of the whole log, with the guard beside without. Neither side is encrypted, so that the guard alone differs.
async fn whole_log(plan: &Plan, report: &Report) -> anyhow::Result<()> {
    let name = "security: whole log, 1 reader";
    if !plan.wants(name) {
        return Ok(());
    }
    let sides = start(plan, &GUARDED).await?;
    let events = (plan.events / EVENTS_PER_TAG).max(1) * EVENTS_PER_TAG;
    for side in &sides {
        let load = Arc::new(Load {
            events,
            next: AtomicU64::new(0),
        });
        let loaders = connections(side, LOADERS).await?.into_iter();
        let works = loaders.map(|connection| {
            let load = Arc::clone(&load);
            Box::new(Loading { connection, load }) as Box<dyn Work>
        });
        closed::run(works.collect(), None, &side.server).await?;
    }
    let measure = async |side: &Side| {
        let work = ReadingAll {
            connection: connect_to(side.server.port, side.server.access.as_ref()).await?,
            at_least: events,
            done: false,
        };
        closed::run(vec![Box::new(work)], None, &side.server).await
    };
    report.row(name, &in_turn(plan.runs, &sides, measure).await?, None);
    Ok(())
}

/// Where the wrong passwords of an attack come from.
#[derive(Clone, Copy, Debug)]
enum Attackers {
    None,
    /// One address, which is limited after ten failures.
    One,
    /// A new address each time. No limit on failures meets them, for the logins are new as well.
    Many,
}

/// An honest client, alone and while wrong passwords arrive.
async fn attacked(plan: &Plan, report: &Report) -> anyhow::Result<()> {
    for (attackers, how) in [
        (Attackers::None, "no attack"),
        (
            Attackers::One,
            "200 wrong passwords a second from one address",
        ),
        (
            Attackers::Many,
            "200 wrong passwords a second from as many addresses",
        ),
    ] {
        let name = format!("security: empty call, 8 callers, {how}");
        row(plan, report, &name, &GUARDED[..1], async |side| {
            let _attack = Attack::begin(side.server.port, attackers);
            let works = empty(side, 8).await?;
            closed::run(works, Some(plan.timing), &side.server).await
        })
        .await?;
    }
    Ok(())
}

/// Requests with wrong passwords at a steady pace, until it is dropped.
struct Attack(Option<AbortHandle>);

impl Attack {
    fn begin(port: u16, attackers: Attackers) -> Self {
        if matches!(attackers, Attackers::None) {
            return Self(None);
        }
        let attack = async move {
            let mut pace = interval(Duration::from_secs(1) / WRONG_PASSWORDS);
            for attempt in 0_u32.. {
                pace.tick().await;
                let source = match attackers {
                    Attackers::Many => Ipv4Addr::from(0x7f00_0002 + attempt % 0x00ff_0000),
                    Attackers::None | Attackers::One => Ipv4Addr::LOCALHOST,
                };
                // What becomes of one does not matter to the next.
                tokio::spawn(wrong_password(format!("user-{attempt}"), source, port));
            }
        };
        Self(Some(tokio::spawn(attack).abort_handle()))
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        if let Some(attack) = &self.0 {
            attack.abort();
        }
    }
}

/// Sends one request with a wrong password from an address of this machine, and waits for its answer.
async fn wrong_password(login: String, source: Ipv4Addr, port: u16) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut connection = socket.connect(server).await?;
    let credentials = STANDARD.encode(format!("{login}:wrong password"));
    let request = format!(
        "GET /info HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Basic {credentials}\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await?;
    connection.read_to_end(&mut Vec::new()).await.map(drop)
}
