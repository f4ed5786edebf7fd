//! Listing the streams of a tenant in the order of the tenant's names.
//!
//! **Owns:** [`list`]: one listing of the store for each class of stored names, merged. **Does not know:** how names
//! are encoded
//! within a class.
//! **Invariants:** names come in the byte order of the tenant's names, each once; at most one page of each class is in memory.

use std::{collections::VecDeque, sync::Arc};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::{StreamName, limits};

use super::name::{METADATA, Names};
use crate::{EventStore, ListStreams, ReadError, StreamInfo};

/// Streams in one page, at most.
const PAGE: usize = 256;

/// The stored names that begin alike, apart from the tenant's names themselves.
struct Class {
    /// What the tenant's names of this class begin with.
    own: &'static str,
    /// What their stored names begin with.
    stored: String,
}

impl Class {
    fn all(names: &Names) -> [Self; 4] {
        let class = |own: &'static str, before: &str, after: &str| Self {
            own,
            stored: [before, &names.prefix, after].concat(),
        };
        [
            class("", "", ""),
            class("-", "-", "-"),
            class(METADATA, METADATA, ""),
            class("$$-", "$$-", "-"),
        ]
    }

    /// Returns the listing of the store that yields this class; `None` if nothing of it is wanted.
    fn request(&self, list: &ListStreams) -> Option<ListStreams> {
        let prefix = match list.prefix.strip_prefix(self.own) {
            Some(rest) => [&self.stored, rest].concat(),
            None if self.own.starts_with(&list.prefix) => self.stored.clone(),
            None => return None,
        };
        let after = match list.after.as_ref().map(StreamName::as_str) {
            None => None,
            Some(after) => match after.strip_prefix(self.own) {
                Some(rest) => Some(shortened(&[&self.stored, rest].concat())?),
                None if after < self.own => None,
                None => return None,
            },
        };
        Some(ListStreams {
            prefix,
            after,
            limit: None,
        })
    }
}

/// A name that is too long for a stream, without its end: a place before it, and behind every stream that is before it.
fn shortened(text: &str) -> Option<StreamName> {
    let end = (0..=text.len().min(limits::STREAM_NAME_BYTES_MAX)).rev();
    let mut end = end.filter(|&end| text.is_char_boundary(end));
    StreamName::new(text.get(..end.next()?)?).ok()
}

/// The streams of one class that are still to come.
struct Source {
    pages: Option<BoxStream<'static, Result<Vec<StreamInfo>, ReadError>>>,
    page: VecDeque<StreamInfo>,
}

struct Listing {
    names: Arc<Names>,
    sources: Vec<Source>,
    after: Option<StreamName>,
    remaining: Option<u64>,
}

pub(super) fn list(
    store: &dyn EventStore,
    names: Arc<Names>,
    list: ListStreams,
) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
    let requests = Class::all(&names);
    let requests = requests.iter().filter_map(|class| class.request(&list));
    let sources = requests.map(|request| Source {
        pages: Some(store.streams(request)),
        page: VecDeque::new(),
    });
    let begin = Listing {
        names,
        sources: sources.collect(),
        after: list.after,
        remaining: list.limit,
    };
    stream::try_unfold(begin, |mut listing| async move {
        let page = listing.next().await?;
        Ok((!page.is_empty()).then_some((page, listing)))
    })
    .boxed()
}

impl Listing {
    async fn next(&mut self) -> Result<Vec<StreamInfo>, ReadError> {
        let mut merged = Vec::new();
        while merged.len() < PAGE && self.remaining != Some(0) {
            for source in &mut self.sources {
                fill(source, &self.names, self.after.as_ref()).await?;
            }
            let waiting = self.sources.iter_mut().filter(|s| !s.page.is_empty());
            let first = waiting.min_by(|a, b| name(a).cmp(&name(b)));
            let Some(info) = first.and_then(|source| source.page.pop_front()) else {
                break;
            };
            merged.push(info);
            self.remaining = self.remaining.map(|remaining| remaining - 1);
        }
        Ok(merged)
    }
}

fn name(source: &Source) -> Option<&StreamName> {
    source.page.front().map(|info| &info.stream)
}

/// Fetches pages until one has a stream, or there is none.
async fn fill(
    source: &mut Source,
    names: &Names,
    after: Option<&StreamName>,
) -> Result<(), ReadError> {
    while source.page.is_empty()
        && let Some(pages) = &mut source.pages
    {
        let page = pages.try_next().await;
        let Some(page) = page.map_err(|error| names.read_error(error))? else {
            source.pages = None;
            return Ok(());
        };
        let own = page.into_iter().filter_map(|info| {
            let stream = names.own_stream(&info.stream)?;
            let wanted = after.is_none_or(|after| stream > *after);
            wanted.then_some(StreamInfo { stream, ..info })
        });
        source.page = own.collect();
    }
    Ok(())
}
