//! A process that is killed between a step and the next.
//!
//! **Owns:** kills at moments that a test chooses; those at random are in `kills`.
//! **Does not know:** how reactions are committed.

use super::{SOON, World, noted, until};

/// The timer is due when it is set, so it could fire before the store has it. Then nothing would bring its reaction back.
#[tokio::test]
async fn a_process_killed_behind_the_reaction_to_a_timer_sends_its_commands_in_the_next_run() {
    // A checkpoint that is written between the reaction and the kill would hide the defect, which is rare in so many rounds.
    for _ in 0..5 {
        let world = World::new();
        kill_behind_the_reaction_to_a_timer(&world).await;
        assert_eq!(world.care("ann").await, noted(&[6], 1));
        assert_eq!(world.thanked("ann").await, 0);

        // A crash also leaves a checkpoint behind what was handled.
        world.repeat_all().await;
        let process = world.spawn();
        until("the command is carried out", async || {
            world.thanked("ann").await == 1
        })
        .await;
        until("the timer is gone", async || world.timers().await == 0).await;
        assert_eq!(world.care("ann").await, noted(&[6], 1));
        process.stop().await.unwrap();
    }
}

async fn kill_behind_the_reaction_to_a_timer(world: &World) {
    let died = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let closed = world.thanker.gate.lock().await;
    let process = {
        let _entered = died.enter();
        world.spawn()
    };
    world.looked().await;
    world.deposit("ann", 6).await;
    until("the timer fires", async || {
        world.care("ann").await.reminded == 1
    })
    .await;
    // Returns when every task is gone, so that none of them finds the gate open.
    tokio::task::spawn_blocking(move || died.shutdown_timeout(SOON))
        .await
        .unwrap();
    drop((closed, process));
}
