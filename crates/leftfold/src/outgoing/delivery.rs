//! Delivering messages, as a listener.
//!
//! **Owns:** [`Transport`], [`Deliver`]. **Does not know:** how a message travels.
//! **Invariants:** a message counts as delivered only when the transport says so.

use std::future::Future;

use super::message::{CloudEvent, Outgoing};
use crate::{Follow, HandlerError, Listener, Recorded, Store};

/// Delivers messages.
pub trait Transport: Send + Sync + 'static {
    /// Delivers one message, at least once: again after a crash or an error, with the same id.
    fn deliver(
        &self,
        message: &CloudEvent,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// Delivers what an [`Outgoing`] makes; made by [`Store::deliver`].
#[derive(Debug)]
pub struct Deliver<O, T> {
    outgoing: O,
    transport: T,
}

impl Store {
    /// Sets up the delivery of messages: see [`Outgoing`] and [`Transport`]. Messages of one stream are delivered in order.
    /// One that fails is tried again, and in the end parked with what follows of its stream.
    pub fn deliver<O: Outgoing, T: Transport>(
        &self,
        outgoing: O,
        transport: T,
    ) -> Follow<Deliver<O, T>> {
        self.follow(Deliver {
            outgoing,
            transport,
        })
    }
}

impl<O: Outgoing, T: Transport> Listener for Deliver<O, T> {
    type Event = O::Event;
    const NAME: &'static str = O::NAME;

    async fn on(&self, event: &Recorded<O::Event>) -> Result<(), HandlerError> {
        match CloudEvent::of(&self.outgoing, event) {
            Some(message) => self.transport.deliver(&message).await,
            None => Ok(()),
        }
    }
}
