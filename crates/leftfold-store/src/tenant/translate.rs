//! Appends, reads and answers between a tenant's form and the stored one.
//!
//! **Owns:** the translation of every value of the contract. **Does not know:** the store.
//! **Invariants:** a translated query matches events of the tenant only; an answer holds no stored name; a value that
//! cannot be stored for the tenant is refused before it reaches the store.

use leftfold_model::{
    Append, AppendCondition, Appended, Conflict, ModelError, NewEvent, Query, QueryItem,
    RecordedEvent, Scope, StreamCheck, StreamName, StreamWrite, limits,
};

use super::name::{Names, Unstorable};
use crate::{AppendError, ReadError};

impl Unstorable {
    pub(super) fn into_append_error(self) -> AppendError {
        AppendError::Invalid { reason: self.0 }
    }

    pub(super) fn into_read_error(self) -> ReadError {
        ReadError::Invalid { reason: self.0 }
    }
}

impl Names {
    fn too_large(&self, error: &ModelError) -> Unstorable {
        Unstorable(self.own_text(&error.to_string()))
    }

    /// Returns the append as it is stored.
    pub(super) fn append(&self, append: Append) -> Result<Append, Unstorable> {
        let (mut writes, mut checks, mut conditions) = append.into_parts();
        for StreamWrite { stream, events, .. } in &mut writes {
            *stream = self.stream(stream)?;
            for event in events {
                *event = self.new_event(event)?;
            }
        }
        for StreamCheck { stream, .. } in &mut checks {
            *stream = self.stream(stream)?;
        }
        for AppendCondition { fail_if_match, .. } in &mut conditions {
            *fail_if_match = self.query(fail_if_match, false)?;
        }
        let stored = Append::new(writes, conditions).and_then(|append| append.with_checks(checks));
        stored.map_err(|error| self.too_large(&error))
    }

    fn new_event(&self, event: &NewEvent) -> Result<NewEvent, Unstorable> {
        let max = limits::TAGS_PER_EVENT_MAX - 1;
        if event.tags().len() > max {
            return Err(Unstorable(format!(
                "event of type {:?} has {} tags; allowed are 0 to {max} for tenant {} (TAGS_PER_EVENT_MAX without the one \
                 that keeps tenants apart)",
                event.event_type(),
                event.tags().len(),
                self.tenant
            )));
        }
        let mut tags = Vec::with_capacity(event.tags().len() + 1);
        tags.push(self.own_tag.clone());
        for tag in event.tags() {
            tags.push(self.tag(tag)?);
        }
        let stored = event.clone().with_id(self.id(event.id()));
        stored
            .with_tags(tags)
            .map_err(|error| self.too_large(&error))
    }

    /// Returns the query as it is stored. Each item names a tag of the tenant, unless the query is `within_stream`.
    pub(super) fn query(&self, query: &Query, within_stream: bool) -> Result<Query, Unstorable> {
        let own = || (!within_stream).then(|| self.own_tag.clone());
        let items = match query {
            Query::All if within_stream => return Ok(Query::All),
            Query::All => vec![QueryItem::new([], own())],
            Query::Items(items) => {
                let stored = items.iter().map(|item| {
                    let types = item.type_list().iter().cloned();
                    if item.tag_list().is_empty() {
                        return Ok(QueryItem::new(types, own()));
                    }
                    let tags = item.tag_list().iter().map(|tag| self.tag(tag));
                    Ok(QueryItem::new(types, tags.collect::<Result<Vec<_>, _>>()?))
                });
                stored.collect::<Result<Vec<_>, Unstorable>>()?
            }
        };
        let items = items.into_iter().collect::<Result<Vec<_>, _>>();
        items
            .and_then(Query::items)
            .map_err(|error| self.too_large(&error))
    }

    /// Returns a scope and a query of it as they are stored.
    pub(super) fn selection(
        &self,
        scope: &Scope,
        query: &Query,
    ) -> Result<(Scope, Query), Unstorable> {
        match scope {
            Scope::All => Ok((Scope::All, self.query(query, false)?)),
            Scope::Stream(stream) => Ok((
                Scope::Stream(self.stream(stream)?),
                self.query(query, true)?,
            )),
            Scope::Category(category) => Ok((
                Scope::Category(self.category(category)?),
                self.query(query, false)?,
            )),
            other => Err(Unstorable(format!(
                "a tenant cannot read this scope: {other:?}"
            ))),
        }
    }

    /// Keeps the tenant's events, in the tenant's form. All others are those that a writer without a tenant put under the
    /// tenant's tags.
    pub(super) fn own_events(&self, mut events: Vec<RecordedEvent>) -> Vec<RecordedEvent> {
        // Neighbours are mostly of one stream, whose name is translated once.
        let mut last: Option<(StreamName, Option<StreamName>)> = None;
        events.retain_mut(|event| {
            let known = last.as_ref().filter(|(stored, _)| *stored == event.stream);
            let own = match known {
                Some((_, own)) => own.clone(),
                None => {
                    let own = self.own_stream(&event.stream);
                    last = Some((event.stream.clone(), own.clone()));
                    own
                }
            };
            let Some(own) = own else {
                return false;
            };
            event.stream = own;
            event.tags.retain_mut(|tag| match self.own_tag_of(tag) {
                Some(own) => {
                    *tag = own;
                    true
                }
                None => false,
            });
            event.id = self.id(event.id);
            true
        });
        events
    }

    pub(super) fn appended(&self, mut appended: Appended) -> Appended {
        for (stream, _) in &mut appended.streams {
            *stream = self.shown(stream);
        }
        appended
    }

    /// The tenant's name of a stream that a call of the tenant named.
    fn shown(&self, stored: &StreamName) -> StreamName {
        self.own_stream(stored).unwrap_or_else(|| stored.clone())
    }

    pub(super) fn append_error(&self, error: AppendError) -> AppendError {
        match error {
            AppendError::Conflict(conflict) => AppendError::Conflict(match conflict {
                Conflict::WrongRevision {
                    stream,
                    expected,
                    actual,
                } => Conflict::WrongRevision {
                    stream: self.shown(&stream),
                    expected,
                    actual,
                },
                Conflict::StreamDeleted { stream } => Conflict::StreamDeleted {
                    stream: self.shown(&stream),
                },
                Conflict::PartlyStored { id, position } => Conflict::PartlyStored {
                    id: self.id(id),
                    position,
                },
                other => other,
            }),
            AppendError::Invalid { reason } => AppendError::Invalid {
                reason: self.own_text(&reason),
            },
            AppendError::AccessDenied { reason } => AppendError::AccessDenied {
                reason: self.own_text(&reason),
            },
            other => other,
        }
    }

    pub(super) fn read_error(&self, error: ReadError) -> ReadError {
        match error {
            ReadError::StreamDeleted { stream } => ReadError::StreamDeleted {
                stream: self.shown(&stream),
            },
            ReadError::Invalid { reason } => ReadError::Invalid {
                reason: self.own_text(&reason),
            },
            ReadError::AccessDenied { reason } => ReadError::AccessDenied {
                reason: self.own_text(&reason),
            },
            other => other,
        }
    }
}
