//! Process managers beside a server, and beside others who write to their streams.
//!
//! **Owns:** what a process does with less than the whole: a page of its timers, a state that is behind the log.
//! **Does not know:** how reactions are committed.

use leftfold::{Store, model::Position};

use super::{Care, CareEvent, HOUR, ThanksEvent, World, reach, until};

/// A server returns at most 64 timers at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_that_a_server_returns_a_few_at_a_time_all_fire() {
    const PROCESSES: u64 = 200;
    let address = crate::client::server().await;
    let world = World {
        store: Store::connect(&address).await.unwrap(),
        ..World::new()
    };
    let mut last = Position::START;
    for nth in 0..PROCESSES {
        last = world.deposit(&format!("a{nth}"), 1).await;
    }
    let process = world.spawn();
    reach(&process, last).await;
    until("all are kept", async || world.timers().await == PROCESSES).await;
    process.stop().await.unwrap();
    // The clock of the server is that of the system.
    world.set_time(HOUR * 24 * 365 * 1_000);
    let process = world.spawn();
    until("all fired", async || world.timers().await == 0).await;
    process.stop().await.unwrap();
    let events = world.store.events::<CareEvent>().collect().await.unwrap();
    let reminded = events
        .iter()
        .filter(|event| event.event == CareEvent::Reminded);
    assert_eq!(reminded.count() as u64, PROCESSES);
}

/// The state that a process has in memory is behind the log after another holder has acted.
#[tokio::test]
async fn a_holder_that_takes_turns_with_another_decides_on_the_log_and_not_on_what_it_remembers() {
    let world = World::new();
    let (mut expected, mut noted) = (Vec::new(), 0);
    for round in 0..4 {
        let process = world.spawn();
        let last = world.deposit("ann", 7).await;
        reach(&process, last).await;
        // Another program writes to the stream of the process, as a second holder would.
        let cares = world.store.repository::<Care>();
        cares
            .execute("ann", |_| CareEvent::Noted {
                amount: 100 + round,
            })
            .await
            .unwrap();
        let last = world.deposit("ann", 4).await;
        reach(&process, last).await;
        process.stop().await.unwrap();
        noted += 3;
        expected.push(noted - 1);
    }
    let thanks = world.store.events::<ThanksEvent>().collect().await.unwrap();
    let totals: Vec<u64> = thanks
        .iter()
        .map(|event| match event.event {
            ThanksEvent::Thanked { total } => total,
        })
        .collect();
    assert_eq!(totals, expected, "what was noted before each reaction");
}
