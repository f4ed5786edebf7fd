//! A process manager of three steps and a timer, beside the commands that it sends.
//!
//! **Owns:** orders, and the process that leads them to their end. **Does not know:** views.
//! **Invariants:** each order is placed, reserved by the process, paid by the process, and closed by its timer.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use leftfold::{
    Aggregate, CommandHandler, Event, HandlerError, Process, Reaction, Recorded, Repository, Seen,
    Sent, Store,
};
use serde::{Deserialize, Serialize};

/// Orders whose states are kept in memory.
const STATES: usize = 16_384;

#[derive(Event, Serialize, Deserialize)]
enum OrderEvent {
    #[event("OrderPlaced")]
    Placed,
    #[event("OrderReserved")]
    Reserved,
    #[event("OrderPaid")]
    Paid,
    #[event("OrderClosed")]
    Closed,
}

#[derive(Default)]
struct Order;

impl Aggregate for Order {
    const CATEGORY: &'static str = "order";
    type Event = OrderEvent;
    fn apply(&mut self, _: &OrderEvent) {}
}

#[derive(Event, Serialize, Deserialize)]
enum StepEvent {
    #[event("StepDone")]
    Done,
}

#[derive(Default)]
struct Steps;

impl Aggregate for Steps {
    const CATEGORY: &'static str = "steps";
    type Event = StepEvent;
    fn apply(&mut self, _: &StepEvent) {}
}

#[derive(Clone, Copy)]
enum Command {
    Reserve,
    Pay,
    Close,
}

impl Process for Steps {
    type Sees = OrderEvent;
    type Command = Command;
    const NAME: &'static str = "steps";

    fn route(event: &Recorded<OrderEvent>) -> Option<String> {
        Some(event.aggregate_id().to_owned())
    }

    fn react(&self, seen: Seen<'_, OrderEvent>) -> Reaction<StepEvent, Command> {
        let done = Reaction::remember(StepEvent::Done);
        match seen {
            Seen::Event(event) => match event.event {
                OrderEvent::Placed => done.send(Command::Reserve),
                OrderEvent::Reserved => done.send(Command::Pay),
                OrderEvent::Paid => done.after("close", Duration::from_millis(1)),
                OrderEvent::Closed => Reaction::ignore(),
            },
            Seen::Timer(_) => done.send(Command::Close),
        }
    }
}

/// Keeps the orders that are open in memory, as the process keeps its own state.
struct Orders(Repository<Order>);

impl CommandHandler<Command> for Orders {
    async fn carry_out(&self, command: &Command, sent: &Sent) -> Result<(), HandlerError> {
        let orders = sent.bind(&self.0);
        let event = || match command {
            Command::Reserve => OrderEvent::Reserved,
            Command::Pay => OrderEvent::Paid,
            Command::Close => OrderEvent::Closed,
        };
        orders.execute(sent.process_id(), |_| event()).await?;
        Ok(())
    }
}

/// Places orders by 64 callers.
async fn place(orders: &Repository<Order>, prefix: &str, count: u64) -> anyhow::Result<()> {
    let tasks: Vec<_> = (0..64)
        .map(|caller| {
            let (orders, prefix) = (orders.clone(), prefix.to_owned());
            tokio::spawn(async move {
                for nth in (caller..count).step_by(64) {
                    let id = format!("{prefix}{nth}");
                    orders.execute(&id, |_| OrderEvent::Placed).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Runs so many processes to their end; their steps per second, and plain commands per second by 64 callers.
pub(crate) async fn run(directory: &Path, processes: u64) -> anyhow::Result<(f64, f64)> {
    let store = Store::open(directory).await?;
    let orders = store.repository::<Order>();
    let begun = Instant::now();
    place(&orders, "", processes).await?;
    let commands = processes as f64 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let handler = Orders(orders.with_state_cache(STATES));
    let steps = store.process::<Steps, _>(handler).parallel(64).spawn();
    // Placed, three commands of the process, and four events of its own.
    let all = leftfold::model::Position::new(8 * processes);
    while store.event_store().head().await? < all {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    steps.stop().await?;
    store.close().await?;
    Ok((4.0 * processes as f64 / elapsed, commands))
}
