//! Orders that are reserved, paid and shipped, or cancelled with all that was done for them taken back.
//!
//! A process manager asks for stock, then for the payment, and sets a timer for it. Who does not pay in time loses the
//! reservation. A listener sends a message about each end. Kill the program wherever you like and start it again: each order
//! comes to one end.
//!
//! In memory: `cargo run -p leftfold --example order_fulfilment`. In a directory: add `-- data`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use leftfold::{
    Aggregate, CommandHandler, Event, HandlerError, Listener, LiveProjection, Process, Reaction,
    Recorded, Seen, Sent, Store,
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Debug)]
pub(crate) enum OrderEvent {
    #[event("OrderPlaced")]
    Placed { item: String, cents: u64 },
    #[event("OrderShipped")]
    Shipped,
    #[event("OrderCancelled")]
    Cancelled { reason: String },
}

/// An order: open until it is shipped or cancelled.
#[derive(Default)]
pub(crate) struct Order {
    placed: bool,
    ended: bool,
}

impl Aggregate for Order {
    const CATEGORY: &'static str = "order";
    type Event = OrderEvent;

    fn apply(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { .. } => self.placed = true,
            OrderEvent::Shipped | OrderEvent::Cancelled { .. } => self.ended = true,
        }
    }
}

impl Order {
    fn place(&self, item: &str, cents: u64) -> Option<OrderEvent> {
        let item = item.to_owned();
        (!self.placed).then_some(OrderEvent::Placed { item, cents })
    }

    fn end(&self, event: OrderEvent) -> Option<OrderEvent> {
        (!self.ended).then_some(event)
    }
}

#[derive(Event, Serialize, Deserialize, Debug)]
pub(crate) enum StockEvent {
    #[event("StockAdded")]
    Added { pieces: u64 },
    #[event("StockReserved")]
    Reserved { order: String },
    #[event("StockRefused")]
    Refused { order: String },
    #[event("StockReleased")]
    Released { order: String },
}

/// What is there of an item, and for whom.
#[derive(Default)]
pub(crate) struct Stock {
    pub(crate) pieces: u64,
    pub(crate) reserved: BTreeSet<String>,
}

impl Aggregate for Stock {
    const CATEGORY: &'static str = "stock";
    type Event = StockEvent;

    fn apply(&mut self, event: &StockEvent) {
        match event {
            StockEvent::Added { pieces } => self.pieces += pieces,
            StockEvent::Reserved { order } => {
                self.reserved.insert(order.clone());
            }
            StockEvent::Released { order } => {
                self.reserved.remove(order);
            }
            StockEvent::Refused { .. } => {}
        }
    }
}

impl Stock {
    /// A refusal is an event too, for the process to see.
    fn reserve(&self, order: &str) -> StockEvent {
        let order = order.to_owned();
        match self.reserved.len() as u64 >= self.pieces {
            true => StockEvent::Refused { order },
            false => StockEvent::Reserved { order },
        }
    }

    fn release(&self, order: &str) -> Option<StockEvent> {
        let order = self.reserved.get(order)?.clone();
        Some(StockEvent::Released { order })
    }
}

#[derive(Event, Serialize, Deserialize, Debug)]
pub(crate) enum PaymentEvent {
    #[event("PaymentAsked")]
    Asked { cents: u64 },
    #[event("PaymentMade")]
    Made,
    #[event("PaymentRefused")]
    Refused,
}

/// The payment of an order, by a bank that makes some, refuses some, and forgets the rest.
#[derive(Default)]
pub(crate) struct Payment;

impl Aggregate for Payment {
    const CATEGORY: &'static str = "payment";
    type Event = PaymentEvent;

    fn apply(&mut self, _: &PaymentEvent) {}
}

impl Payment {
    fn ask(cents: u64) -> Vec<PaymentEvent> {
        let asked = PaymentEvent::Asked { cents };
        match cents % 3 {
            0 => vec![asked],
            1 => vec![asked, PaymentEvent::Made],
            _ => vec![asked, PaymentEvent::Refused],
        }
    }
}

/// What the process needs to see, of several aggregates.
#[derive(Event, Serialize, Deserialize)]
pub(crate) enum Observed {
    #[event("OrderPlaced")]
    OrderPlaced { item: String, cents: u64 },
    #[event("StockReserved")]
    StockReserved { order: String },
    #[event("StockRefused")]
    StockRefused { order: String },
    #[event("PaymentMade")]
    PaymentMade,
    #[event("PaymentRefused")]
    PaymentRefused,
}

#[derive(Event, Serialize, Deserialize, Debug)]
pub(crate) enum FulfilmentEvent {
    #[event("FulfilmentBegun")]
    Begun { item: String, cents: u64 },
    #[event("FulfilmentAwaitsPayment")]
    AwaitsPayment,
    #[event("FulfilmentDone")]
    Done,
    #[event("FulfilmentFailed")]
    Failed { reason: String },
}

/// What is done for one order.
#[derive(Default)]
pub(crate) struct Fulfilment {
    item: String,
    cents: u64,
    awaits_payment: bool,
}

pub(crate) enum Command {
    Reserve { item: String },
    AskPayment { cents: u64 },
    Ship,
    Release { item: String },
    Cancel { reason: String },
}

impl Aggregate for Fulfilment {
    const CATEGORY: &'static str = "fulfilment";
    type Event = FulfilmentEvent;

    fn apply(&mut self, event: &FulfilmentEvent) {
        match event {
            FulfilmentEvent::Begun { item, cents } => {
                (self.item, self.cents) = (item.clone(), *cents)
            }
            FulfilmentEvent::AwaitsPayment => self.awaits_payment = true,
            FulfilmentEvent::Done | FulfilmentEvent::Failed { .. } => self.awaits_payment = false,
        }
    }
}

impl Fulfilment {
    /// Takes back what was done.
    fn give_up(&self, reason: &str) -> Reaction<FulfilmentEvent, Command> {
        let reason = reason.to_owned();
        if !self.awaits_payment {
            return Reaction::ignore();
        }
        Reaction::remember(FulfilmentEvent::Failed {
            reason: reason.clone(),
        })
        .cancel("pay-by")
        .send(Command::Release {
            item: self.item.clone(),
        })
        .send(Command::Cancel { reason })
    }
}

impl Process for Fulfilment {
    type Sees = Observed;
    type Command = Command;
    const NAME: &'static str = "fulfilment";

    fn route(event: &Recorded<Observed>) -> Option<String> {
        match &event.event {
            Observed::StockReserved { order } | Observed::StockRefused { order } => {
                Some(order.clone())
            }
            _ => Some(event.aggregate_id().to_owned()),
        }
    }

    fn react(&self, seen: Seen<'_, Observed>) -> Reaction<FulfilmentEvent, Command> {
        let event = match seen {
            Seen::Event(recorded) => &recorded.event,
            Seen::Timer(_) => return self.give_up("not paid in time"),
        };
        match event {
            Observed::OrderPlaced { item, cents } => {
                let (item, cents) = (item.clone(), *cents);
                Reaction::remember(FulfilmentEvent::Begun {
                    item: item.clone(),
                    cents,
                })
                .send(Command::Reserve { item })
            }
            Observed::StockReserved { .. } => Reaction::remember(FulfilmentEvent::AwaitsPayment)
                .after("pay-by", Duration::from_millis(300))
                .send(Command::AskPayment { cents: self.cents }),
            Observed::StockRefused { .. } => {
                let reason = "sold out".to_owned();
                Reaction::remember(FulfilmentEvent::Failed {
                    reason: reason.clone(),
                })
                .send(Command::Cancel { reason })
            }
            Observed::PaymentMade if self.awaits_payment => {
                Reaction::remember(FulfilmentEvent::Done)
                    .cancel("pay-by")
                    .send(Command::Ship)
            }
            Observed::PaymentMade => Reaction::ignore(),
            Observed::PaymentRefused => self.give_up("payment refused"),
        }
    }
}

/// Carries out what the process wants.
pub(crate) struct Departments;

impl CommandHandler<Command> for Departments {
    async fn carry_out(&self, command: &Command, sent: &Sent) -> Result<(), HandlerError> {
        let order = sent.process_id();
        let (orders, stock) = (sent.repository::<Order>(), sent.repository::<Stock>());
        match command {
            Command::Reserve { item } => {
                stock.execute(item, |stock| stock.reserve(order)).await?;
            }
            Command::Release { item } => {
                stock.execute(item, |stock| stock.release(order)).await?;
            }
            Command::AskPayment { cents } => {
                let payments = sent.repository::<Payment>();
                payments.execute(order, |_| Payment::ask(*cents)).await?;
            }
            Command::Ship => {
                orders
                    .execute(order, |order| order.end(OrderEvent::Shipped))
                    .await?;
            }
            Command::Cancel { reason } => {
                let cancelled = || OrderEvent::Cancelled {
                    reason: reason.clone(),
                };
                orders
                    .execute(order, |order| order.end(cancelled()))
                    .await?;
            }
        }
        Ok(())
    }
}

/// The ends of orders.
#[derive(Event, Serialize, Deserialize)]
pub(crate) enum End {
    #[event("OrderShipped")]
    Shipped,
    #[event("OrderCancelled")]
    Cancelled { reason: String },
}

/// Writes a message about each end of an order to a file; the log is the outbox.
pub(crate) struct Messages {
    file: PathBuf,
}

impl Listener for Messages {
    type Event = End;
    const NAME: &'static str = "messages";

    #[expect(
        clippy::disallowed_methods,
        reason = "only the engine's files go through a Disk"
    )]
    async fn on(&self, end: &Recorded<End>) -> Result<(), HandlerError> {
        let line = match &end.event {
            End::Shipped => format!("{} {} shipped\n", end.id, end.aggregate_id()),
            End::Cancelled { reason } => {
                format!("{} {} cancelled: {reason}\n", end.id, end.aggregate_id())
            }
        };
        let mut options = std::fs::File::options();
        let mut file = options.create(true).append(true).open(&self.file)?;
        file.write_all(line.as_bytes())?;
        Ok(())
    }
}

/// How many orders ended in which way.
#[derive(Default)]
pub(crate) struct Ends(pub(crate) BTreeMap<String, &'static str>);

impl LiveProjection for Ends {
    type Event = End;

    fn project(&mut self, end: &Recorded<End>) {
        let how = match end.event {
            End::Shipped => "shipped",
            End::Cancelled { .. } => "cancelled",
        };
        self.0.insert(end.aggregate_id().to_owned(), how);
    }
}

/// Places so many orders unless that was done, and waits until all of them ended and are told of.
pub(crate) async fn run(
    store: &Store,
    messages: &Path,
    orders: u64,
) -> Result<Ends, Box<dyn Error>> {
    let fulfilment = store
        .process::<Fulfilment, _>(Departments)
        .parallel(8)
        .spawn();
    let file = messages.to_owned();
    let messenger = store.follow(Messages { file }).spawn();
    let ends = store.live::<Ends>();

    let stock = store
        .repository::<Stock>()
        .with_idempotency_key("add", "once");
    let pieces = orders / 2;
    stock
        .execute("lamp", |_| StockEvent::Added { pieces })
        .await?;
    let repository = store.repository::<Order>();
    for nth in 0..orders {
        let id = format!("o{nth}");
        repository
            .execute(&id, |order| order.place("lamp", 1_000 + nth))
            .await?;
    }
    while (ends.read(|ends| ends.0.len()) as u64) < orders {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    messenger
        .wait_for(store.event_store().head().await?)
        .await?;
    fulfilment.stop().await?;
    messenger.stop().await?;
    let ends = ends.read(|ends| Ends(ends.0.clone()));
    Ok(ends)
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, directory) = match env::args().nth(1) {
        Some(directory) => (Store::open(&directory).await?, PathBuf::from(directory)),
        None => (Store::memory(), env::temp_dir()),
    };
    let messages = directory.join("messages.txt");
    let ends = run(&store, &messages, 30).await?;
    for (order, how) in &ends.0 {
        println!("{order} was {how}");
    }
    println!("messages are in {}", messages.display());
    store.close().await?;
    Ok(())
}
