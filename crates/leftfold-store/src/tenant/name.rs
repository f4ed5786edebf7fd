//! The names of tenants, and how the names of their streams, tags and consumers are stored.
//!
//! **Owns:** [`TenantName`], and the encoding of every name that one tenant uses. **Does not know:** appends, reads, stores.
//! **Invariants:**
//! - The encoding is injective over all tenants: a stored name belongs to one tenant, and to one name of that tenant.
//! - The category of a stored stream follows from the category of the tenant's stream.
//! - Within one class of names, the byte order of stored names is that of the tenant's names.
//! - A stream of a tenant always has a metadata stream.

use std::{fmt, fmt::Write as _, sync::Arc};

use leftfold_model::{Category, EventId, StreamName, Tag, limits, truncate_for_display};

use crate::consumers::ConsumerName;

/// Bytes of an encoded tenant name, at most: enough for a UUID, and little of what names of streams and tags may have.
const NAME_BYTES_MAX: usize = 64;
/// Bytes of a consumer's name in the store, at most.
const CONSUMER_BYTES_MAX: usize = 255;
/// What stands before the name of a stream in the name of its metadata stream.
pub(super) const METADATA: &str = "$$";

/// A text is no name of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "tenant name is not valid: {shown:?}, which takes {bytes} bytes; expected 1 to {max} bytes, of which every byte except \
     ASCII letters, digits, `_` and `.` takes 3",
    max = NAME_BYTES_MAX
)]
pub struct InvalidTenantName {
    /// Its beginning.
    shown: String,
    /// The bytes of its encoded form.
    bytes: usize,
}

/// The name of a tenant: any text that takes 1 to 64 bytes. Cheap to clone.
///
/// ASCII letters, digits, `_` and `.` take one byte each; every other byte takes three. A UUID takes 44.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantName {
    text: Arc<str>,
    /// `@` and the encoded text: on each of the tenant's events.
    tag: Tag,
}

impl TenantName {
    /// Creates the name with this text.
    ///
    /// # Errors
    /// [`InvalidTenantName`].
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidTenantName> {
        let text = text.as_ref();
        let encoded = encode(text);
        let bytes = encoded.len();
        let invalid = || InvalidTenantName {
            shown: text.chars().take(NAME_BYTES_MAX).collect(),
            bytes,
        };
        if !(1..=NAME_BYTES_MAX).contains(&bytes) {
            return Err(invalid());
        }
        Ok(Self {
            text: text.into(),
            tag: Tag::new(format!("@{encoded}")).map_err(|_| invalid())?,
        })
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns what stands before the names of the tenant's streams, tags and consumers in the store: `@acme/`. For operators
    /// who look at the whole store.
    #[must_use]
    pub fn stored_prefix(&self) -> String {
        format!("{}/", self.tag)
    }
}

/// Percent-encodes what is not a letter, digit, `_` or `.`: neither `-`, which would end a category, nor `/` and `@`, which
/// end and begin the tenant's part of a name, remain.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

impl std::str::FromStr for TenantName {
    type Err = InvalidTenantName;

    fn from_str(text: &str) -> Result<Self, InvalidTenantName> {
        Self::new(text)
    }
}
impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}
impl fmt::Debug for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// A name cannot be stored for a tenant; the text says why, in the tenant's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unstorable(pub(super) String);

/// The encoding of one tenant's names.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) tenant: TenantName,
    /// `@acme/`.
    pub(super) prefix: String,
    /// `@acme`: on each of the tenant's events.
    pub(super) own_tag: Tag,
    /// Added to event ids, bit by bit without carry, so that equal ids of two tenants differ in the store.
    mask: [u8; 16],
}

impl Names {
    pub(super) fn new(tenant: TenantName) -> Self {
        let namespace = EventId::from_bytes(*b"leftfold-tenant1");
        let mask = EventId::derived(namespace, tenant.tag.as_str().as_bytes());
        Self {
            own_tag: tenant.tag.clone(),
            mask: *mask.as_bytes(),
            prefix: tenant.stored_prefix(),
            tenant,
        }
    }

    /// Returns the stored form of a stream's name.
    pub(super) fn stream(&self, own: &StreamName) -> Result<StreamName, Unstorable> {
        let stored = self.stored_text("stream name", own.as_str())?;
        StreamName::new(stored).map_err(|error| Unstorable(error.to_string()))
    }

    /// Returns the tenant's name of a stored stream; `None` if the stream is not the tenant's.
    pub(super) fn own_stream(&self, stored: &StreamName) -> Option<StreamName> {
        let (metadata, rest) = split(stored.as_str());
        let (dashed, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let plain = rest.strip_prefix(&self.prefix)?;
        let valid = !plain.is_empty() && !plain.starts_with(METADATA);
        if !valid || plain.starts_with('-') != dashed {
            return None;
        }
        StreamName::new(format!("{metadata}{plain}")).ok()
    }

    /// Returns the stored form of a category. That of the metadata of streams whose names begin with `-` is shared by all
    /// tenants; queries within a category select the tenant's events themselves.
    pub(super) fn category(&self, own: &Category) -> Result<Category, Unstorable> {
        if own.as_str() == METADATA {
            return Ok(own.clone());
        }
        let stored = self.stored_text("category", own.as_str())?;
        Category::new(stored).map_err(|error| Unstorable(error.to_string()))
    }

    fn stored_text(&self, what: &str, own: &str) -> Result<String, Unstorable> {
        let (metadata, plain) = split(own);
        let shown = || truncate_for_display(own, 64);
        if plain.starts_with(METADATA) {
            return Err(Unstorable(format!(
                "{what} is not valid for a tenant: {:?}; expected `$$` at its beginning once, and a name behind it",
                shown()
            )));
        }
        let dash = if plain.starts_with('-') { "-" } else { "" };
        let around = METADATA.len() + dash.len() + self.prefix.len();
        let max = limits::STREAM_NAME_BYTES_MAX - around;
        if plain.len() > max {
            return Err(Unstorable(format!(
                "{what} {:?} has {} bytes; allowed are 1 to {max} for tenant {} (STREAM_NAME_BYTES_MAX without the \
                 {around} bytes that keep tenants apart)",
                shown(),
                plain.len(),
                self.tenant
            )));
        }
        Ok([metadata, dash, &self.prefix, plain].concat())
    }

    /// Returns the stored form of a tag.
    pub(super) fn tag(&self, own: &Tag) -> Result<Tag, Unstorable> {
        let max = limits::TAG_BYTES_MAX - self.prefix.len();
        let bytes = own.as_str().len();
        if bytes > max {
            return Err(Unstorable(format!(
                "tag {:?} has {bytes} bytes; allowed are 1 to {max} for tenant {} (TAG_BYTES_MAX without the {} bytes \
                 that keep tenants apart)",
                truncate_for_display(own.as_str(), 64),
                self.tenant,
                self.prefix.len()
            )));
        }
        let stored = [self.prefix.as_str(), own.as_str()].concat();
        Tag::new(stored).map_err(|error| Unstorable(error.to_string()))
    }

    /// Returns the tenant's form of a stored tag; `None` for the one that marks the tenant's events.
    pub(super) fn own_tag_of(&self, stored: &Tag) -> Option<Tag> {
        Tag::new(stored.as_str().strip_prefix(&self.prefix)?).ok()
    }

    /// Returns the stored form of an event id, and the tenant's form of a stored one: the mapping is its own inverse.
    ///
    /// No id is stored as nil: the id that would be takes the place of nil, which no event has.
    pub(super) fn id(&self, id: EventId) -> EventId {
        let mut bytes = *id.as_bytes();
        if bytes == self.mask {
            return id;
        }
        for (byte, mask) in bytes.iter_mut().zip(self.mask) {
            *byte ^= mask;
        }
        EventId::from_bytes(bytes)
    }

    /// Returns the stored form of a consumer's name.
    pub(super) fn consumer(&self, own: &ConsumerName) -> Result<ConsumerName, Unstorable> {
        let stored = [self.prefix.as_str(), own.as_str()].concat();
        ConsumerName::new(stored).map_err(|_| {
            Unstorable(format!(
                "1 to {} bytes for tenant {}",
                CONSUMER_BYTES_MAX - self.prefix.len(),
                self.tenant
            ))
        })
    }

    /// Returns the tenant's name of a stored consumer; `None` if the consumer is not the tenant's.
    pub(super) fn own_consumer(&self, stored: &ConsumerName) -> Option<ConsumerName> {
        ConsumerName::new(stored.as_str().strip_prefix(&self.prefix)?).ok()
    }

    /// Returns a text of the store with the tenant's names instead of the stored ones.
    pub(super) fn own_text(&self, text: &str) -> String {
        let dashed = format!("-{}-", self.prefix);
        text.replace(&dashed, "-").replace(&self.prefix, "")
    }
}

/// Splits a name into `$$`, if it is that of a metadata stream, and the rest.
pub(super) fn split(name: &str) -> (&'static str, &str) {
    match name.strip_prefix(METADATA) {
        Some(rest) if !rest.is_empty() => (METADATA, rest),
        _ => ("", name),
    }
}

/// Returns the tags that mark the events of a stored stream as those of its tenants: one, or several if tenants are nested.
///
/// For events that the store itself adds to a stream.
pub(crate) fn tags_of_tenants(stored: &StreamName) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut marked = String::new();
    let (_, mut rest) = split(stored.as_str());
    loop {
        rest = rest.strip_prefix('-').unwrap_or(rest);
        let Some((tenant, inner)) = rest.strip_prefix('@').and_then(|r| r.split_once('/')) else {
            return tags;
        };
        if !marked.is_empty() {
            marked.push('/');
        }
        marked.push('@');
        marked.push_str(tenant);
        // A tag that is too long marks no event, because no tenant could append one with it.
        tags.extend(Tag::new(marked.as_str()));
        rest = inner;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tenant: &str) -> Names {
        Names::new(TenantName::new(tenant).unwrap())
    }
    fn stream(name: &str) -> StreamName {
        StreamName::new(name).unwrap()
    }

    const TENANTS: [&str; 12] = [
        "a", "ab", "a/b", "a@b", "@a", "a-b", "a%2Db", "a.b", "-", "$$", "\u{e9}", "a\0",
    ];
    const STREAMS: [&str; 12] = [
        "room-1",
        "room",
        "$$room-1",
        "-odd",
        "$$-odd",
        "$system",
        "$$$system",
        "@a/room-1",
        "/",
        "b/room-1",
        "%2F",
        "$",
    ];

    #[test]
    fn every_name_of_every_tenant_is_stored_as_another_and_comes_back() {
        let mut stored = std::collections::HashMap::new();
        for tenant in TENANTS {
            let names = names(tenant);
            for name in STREAMS {
                let own = stream(name);
                let at = names.stream(&own).unwrap();
                assert_eq!(names.own_stream(&at), Some(own.clone()), "{at}");
                assert_eq!(stored.insert(at.clone(), (tenant, name)), None, "{at}");
                assert_eq!(
                    names.category(&own.category()).unwrap(),
                    at.category(),
                    "{at}"
                );
                let described = own.metadata_stream();
                let described = described.map(|stream| names.stream(&stream).unwrap());
                assert_eq!(described, at.metadata_stream(), "{at}");
                assert_eq!(tags_of_tenants(&at).first(), Some(&names.own_tag), "{at}");
            }
        }
        for tenant in TENANTS {
            for (at, (owner, name)) in &stored {
                let seen = names(tenant).own_stream(at);
                assert_eq!(
                    seen,
                    (tenant == *owner).then(|| stream(name)),
                    "{tenant}: {at}"
                );
            }
        }
    }

    #[test]
    fn ids_of_tenants_differ_and_come_back_and_none_is_nil() {
        let (a, b) = (names("a"), names("ab"));
        let id = EventId::fresh();
        assert_ne!(a.id(id), b.id(id));
        assert_eq!(a.id(a.id(id)), id);
        let mask = EventId::from_bytes(a.mask);
        assert!(!a.id(mask).is_nil());
        assert_eq!(a.id(a.id(mask)), mask);
    }

    #[test]
    fn names_hold_at_their_limits_and_not_beyond() {
        let names = names("acme");
        let longest = "s".repeat(limits::STREAM_NAME_BYTES_MAX - "$$@acme/".len());
        let at = names.stream(&stream(&longest)).unwrap();
        assert!(at.metadata_stream().is_some());
        let refused = names.stream(&stream(&format!("{longest}s"))).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("1017 bytes") && text.contains("1 to 1016"),
            "{text}"
        );
        assert!(!text.contains('@'), "{text}");
        let tag = Tag::new("g".repeat(250)).unwrap();
        let text = names.tag(&tag).unwrap_err().to_string();
        assert!(
            text.contains("250 bytes") && text.contains("1 to 249"),
            "{text}"
        );
        for refused in ["$$", "$$$$", "$$$$room"] {
            assert!(names.stream(&stream(refused)).is_err(), "{refused}");
        }
        assert!(TenantName::new("").is_err());
        assert!(TenantName::new("a".repeat(64)).is_ok());
        let text = TenantName::new("-".repeat(22)).unwrap_err().to_string();
        assert!(text.contains("66 bytes"), "{text}");
    }

    #[test]
    fn nested_tenants_mark_the_events_of_the_store_with_the_tags_of_both() {
        let (outer, inner) = (names("a"), names("b"));
        for name in ["room-1", "$$room-1", "-odd", "$$-odd"] {
            let stored = outer.stream(&inner.stream(&stream(name)).unwrap()).unwrap();
            let tags = [outer.own_tag.clone(), outer.tag(&inner.own_tag).unwrap()];
            assert_eq!(tags_of_tenants(&stored), tags, "{stored}");
        }
        assert_eq!(tags_of_tenants(&stream("room-1")), []);
    }
}
