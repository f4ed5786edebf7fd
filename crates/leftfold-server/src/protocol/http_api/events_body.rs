//! Extractor for events to append, in each of the formats in which clients send them.
//!
//! **Owns:** [`EventsBody`]: choosing the format by the headers. **Does not know:** what the events are for.
//! **Invariants:** the format is known before the body is read.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, Request},
    http::HeaderMap,
};

use super::{
    cloud_events,
    extract::{JSON, RequestBody, cloud_events_header, media_type, unknown_type},
    problem::Problem,
};
use crate::state::ServerState;

/// A body of events.
#[derive(Debug)]
pub(super) struct EventsBody {
    pub(super) body: RequestBody,
    pub(super) form: EventsForm,
}

impl FromRequest<Arc<ServerState>> for EventsBody {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Arc<ServerState>) -> Result<Self, Problem> {
        let form = EventsForm::of(request.headers())?;
        let body = RequestBody::read_after_headers(request, shared).await?;
        Ok(Self { body, form })
    }
}

/// The formats of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventsForm {
    /// In this server's own JSON.
    Plain,
    /// One event of `CloudEvents`, in structured mode.
    CloudEvent,
    /// A batch of events of `CloudEvents`.
    CloudEvents,
    /// One event of `CloudEvents` in binary mode: its attributes are headers, and its data is the body.
    Binary,
}

impl EventsForm {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        match media_type(headers)?.as_str() {
            cloud_events::ONE => Ok(Self::CloudEvent),
            cloud_events::BATCH => Ok(Self::CloudEvents),
            _ if cloud_events_header(headers).is_some() => Ok(Self::Binary),
            JSON => Ok(Self::Plain),
            other => {
                let known = format!("{JSON}, {} and {}", cloud_events::ONE, cloud_events::BATCH);
                Err(unknown_type(other, &known))
            }
        }
    }
}
