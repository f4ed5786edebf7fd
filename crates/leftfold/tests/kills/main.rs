//! Programs that are killed at random moments, and started again.
//!
//! **Owns:** the example `order_fulfilment` under `kill -9`, `holders` and `inline`.
//! **Does not know:** where it is killed; the seed is printed.
//! **Invariants:** each order comes to exactly one end, each end is told of at least once with its id, each timer fires at
//! most once, and what was reserved for cancelled orders is given back.

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

/// Pauses before kills, from a seed.
struct Pauses(u64);

impl Pauses {
    fn next(&mut self) -> Duration {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis((mixed ^ (mixed >> 31)) % 120)
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
    let kills: u32 = number("LEFTFOLD_KILLS").map_or(10, |n| u32::try_from(n).unwrap());
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
    runtime.block_on(holders::run(kills));
    runtime.block_on(inline::run(&mut pauses, kills));
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
    let mut ends: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for event in store.events::<OrderEvent>().collect().await.unwrap() {
        let shipped = matches!(event.event, OrderEvent::Shipped);
        if !matches!(event.event, OrderEvent::Placed { .. }) {
            let ended = ends.entry(event.aggregate_id().to_owned()).or_default();
            ended.push((event.id.to_string(), shipped));
        }
    }
    assert_eq!(ends.len() as u64, ORDERS, "orders that ended");
    let messages = std::fs::read_to_string(directory.join("messages.txt")).unwrap();
    let sent: BTreeSet<&str> = messages
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    for (order, ended) in &ends {
        assert_eq!(ended.len(), 1, "{order} ended {ended:?}");
        assert!(
            sent.contains(ended[0].0.as_str()),
            "{order} was not sent of"
        );
    }
    let mut overdue: BTreeMap<String, u32> = BTreeMap::new();
    let mut failed: BTreeMap<String, u32> = BTreeMap::new();
    for event in store.events::<FulfilmentEvent>().collect().await.unwrap() {
        if let FulfilmentEvent::Failed { reason } = &event.event {
            let id = event.aggregate_id().to_owned();
            *failed.entry(id.clone()).or_default() += 1;
            if reason == "not paid in time" {
                *overdue.entry(id).or_default() += 1;
            }
        }
    }
    assert!(!overdue.is_empty(), "no timer fired");
    assert!(failed.values().all(|&times| times == 1), "{failed:?}");
    let stock = store.repository::<Stock>().load("lamp").await.unwrap();
    let shipped = ends
        .iter()
        .filter(|(_, ended)| ended[0].1)
        .map(|(order, _)| order.clone());
    assert_eq!(stock.state().reserved, shipped.collect::<BTreeSet<_>>());
    store.close().await.unwrap();
}
