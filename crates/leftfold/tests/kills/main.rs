//! Programs that are killed at random moments, and started again.
//!
//! **Owns:** the example `order_fulfilment` under `kill -9`, `holders` and `inline`.
//! **Does not know:** where it is killed; the seed is printed.
//! **Invariants:** each order ends in exactly one state, and the program sends a message with the order's id for each end at
//! least once; the timer of an unpaid order fires exactly once, any other at most once; a cancelled order releases its stock.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test of its own: it stops at the first surprise and says what it does"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use leftfold::Store;

mod holders;
mod inline;

#[path = "../../examples/order_fulfilment.rs"]
#[expect(dead_code, reason = "the example has a main of its own")]
mod example;

use example::{FulfilmentEvent, OrderEvent, Stock};

const ORDERS: u64 = 40;
/// Kills in a run that names no other number.
const KILLS: u32 = 50;

/// Pauses before kills, from a seed.
struct Pauses(u64);

impl Pauses {
    fn next(&mut self) -> Duration {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis((mixed ^ (mixed >> 31)) % 100)
    }
}

fn main() {
    if let Some(directory) = env::args().skip_while(|arg| arg != "child").nth(1) {
        return child(Path::new(&directory));
    }
    if let Some([address, name, file]) = holders::arguments() {
        return holders::child(&address, name, Path::new(&file));
    }
    if let Some(address) = inline::argument() {
        return inline::child(&address);
    }
    let number = |name: &str| {
        env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let kills = number("LEFTFOLD_KILLS").map_or(KILLS, |n| u32::try_from(n).unwrap());
    let seed = number("LEFTFOLD_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("LEFTFOLD_SEED={seed} LEFTFOLD_KILLS={kills}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut pauses = Pauses(seed);
    let (mut killed, mut stores) = (0, 0);
    while killed < kills {
        let directory = tempfile::tempdir().unwrap();
        killed += kill_until_it_ends(directory.path(), &mut pauses, kills - killed);
        runtime.block_on(check(directory.path()));
        stores += 1;
    }
    println!("order_fulfilment: {killed} kills, {stores} stores of {ORDERS} orders: ok");
    // Each of these rounds waits for leases to expire.
    runtime.block_on(holders::run(kills.div_ceil(5)));
    runtime.block_on(inline::run(&mut pauses, kills.div_ceil(5)));
}

/// Kills the program again and again until it ends by itself, or was killed so often; returns how often it was killed.
fn kill_until_it_ends(directory: &Path, pauses: &mut Pauses, kills: u32) -> u32 {
    for killed in 0..kills {
        let mut program = start(directory);
        // The program is killed behind its start more often than in it.
        thread::sleep(pauses.next() + Duration::from_millis(20));
        if let Some(status) = program.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return killed;
        }
        program.kill().unwrap();
        program.wait().unwrap();
    }
    let ended = start(directory).wait().unwrap();
    assert!(ended.success(), "{ended}");
    kills
}

fn start(directory: &Path) -> std::process::Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.arg("child").arg(directory).spawn().unwrap()
}

fn child(directory: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ends = runtime.block_on(async {
        let store = Store::open(directory.join("data")).await.unwrap();
        let messages = directory.join("messages.txt");
        let ends = example::run(&store, &messages, ORDERS).await.unwrap();
        store.close().await.unwrap();
        ends
    });
    assert_eq!(ends.0.len() as u64, ORDERS);
}

async fn check(directory: &Path) {
    let store = Store::open(directory.join("data")).await.unwrap();
    let ends = check_ends(&store, &directory.join("messages.txt")).await;
    check_timers(&store).await;
    let stock = store.repository::<Stock>().load("lamp").await.unwrap();
    let shipped = ends.into_iter().filter(|(_, is_shipped)| *is_shipped);
    let shipped: BTreeSet<_> = shipped.map(|(order, _)| order).collect();
    assert_eq!(stock.state().reserved, shipped);
    store.close().await.unwrap();
}

/// Each order ended once, and was told of; returns whether it was shipped.
async fn check_ends(store: &Store, messages: &Path) -> BTreeMap<String, bool> {
    let mut ends: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for event in store.events::<OrderEvent>().collect().await.unwrap() {
        let shipped = matches!(event.event, OrderEvent::Shipped);
        if !matches!(event.event, OrderEvent::Placed { .. }) {
            let ended = ends.entry(event.aggregate_id().to_owned()).or_default();
            ended.push((event.id.to_string(), shipped));
        }
    }
    assert_eq!(ends.len() as u64, ORDERS, "orders that ended");
    let messages = std::fs::read_to_string(messages).unwrap();
    let sent: BTreeSet<&str> = messages
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let check = |(order, ended): (String, Vec<(String, bool)>)| {
        assert_eq!(ended.len(), 1, "{order} ended {ended:?}");
        let id = ended[0].0.as_str();
        assert!(sent.contains(id), "{order} was not sent of");
        (order, ended[0].1)
    };
    ends.into_iter().map(check).collect()
}

/// Each process ended once, and the timer of each order that the bank forgot fired.
async fn check_timers(store: &Store) {
    let mut ended: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut forgotten = BTreeSet::new();
    let mut awaits_payment = BTreeSet::new();
    for event in store.events::<FulfilmentEvent>().collect().await.unwrap() {
        let id = event.aggregate_id().to_owned();
        match event.event {
            FulfilmentEvent::Begun { cents, .. } => {
                // See `Payment::ask`.
                if cents.is_multiple_of(3) {
                    forgotten.insert(id);
                }
            }
            FulfilmentEvent::AwaitsPayment => {
                assert!(
                    awaits_payment.insert(id.clone()),
                    "{id} set its timer twice"
                );
            }
            FulfilmentEvent::Done => ended.entry(id).or_default().push("paid".to_owned()),
            FulfilmentEvent::Failed { reason } => ended.entry(id).or_default().push(reason),
        }
    }
    assert_eq!(ended.len() as u64, ORDERS, "processes that ended");
    assert!(ended.values().all(|ends| ends.len() == 1), "{ended:?}");
    let mut fired = 0;
    for id in forgotten.intersection(&awaits_payment) {
        assert_eq!(ended[id], ["not paid in time"], "{id}");
        fired += 1;
    }
    assert!(fired > 0, "no timer fired");
}
