//! The rights of an API key.
//!
//! **Owns:** [`Grant`], its text form, and what it covers. **Does not know:** keys, users.
//! **Invariants:** a grant without a scope covers no system stream, unless it is that of an administrator.

use std::{fmt, str::FromStr};

use leftfold_model::{Category, Tag};

/// What may be done with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Read events.
    Read,
    /// Append events.
    Write,
    /// Delete the stream.
    Delete,
    /// Read the metadata.
    ReadMetadata,
    /// Change the metadata.
    WriteMetadata,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "append to",
            Self::Delete => "delete",
            Self::ReadMetadata => "read the metadata of",
            Self::WriteMetadata => "change the metadata of",
        })
    }
}

/// A right of an API key: a role, within a scope.
///
/// Its text form is `ROLE` or `ROLE:SCOPE=VALUE`. Roles are `read`, `append` and `admin`; scopes are `prefix`, `category`
/// and `tag`.
///
/// ```
/// use leftfold_server::access::Grant;
/// let grant: Grant = "append:category=order".parse()?;
/// assert_eq!(grant.to_string(), "append:category=order");
/// assert!("write".parse::<Grant>().is_err());
/// # Ok::<(), leftfold_server::access::InvalidGrant>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    role: Role,
    scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Read,
    Append,
    Admin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    All,
    Prefix(String),
    Category(String),
    Tag(String),
}

/// A text is no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid grant {given:?}; expected read, append or admin, alone or with :prefix=TEXT, :category=NAME or :tag=TAG"
)]
pub struct InvalidGrant {
    given: String,
}

impl FromStr for Grant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let invalid = || InvalidGrant {
            given: text.to_owned(),
        };
        let (role, scope) = match text.split_once(':') {
            Some((role, scope)) => (role, Some(scope)),
            None => (text, None),
        };
        let role = match role {
            "read" => Role::Read,
            "append" => Role::Append,
            "admin" => Role::Admin,
            _ => return Err(invalid()),
        };
        let scope = match scope.map(|scope| scope.split_once('=')) {
            None => Scope::All,
            Some(Some(("prefix", prefix))) if !prefix.is_empty() => {
                Scope::Prefix(prefix.to_owned())
            }
            Some(Some(("category", name))) if Category::new(name).is_ok() => {
                Scope::Category(name.to_owned())
            }
            Some(Some(("tag", tag))) if Tag::new(tag).is_ok() => Scope::Tag(tag.to_owned()),
            Some(_) => return Err(invalid()),
        };
        Ok(Self { role, scope })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.role {
            Role::Read => "read",
            Role::Append => "append",
            Role::Admin => "admin",
        })?;
        match &self.scope {
            Scope::All => Ok(()),
            Scope::Prefix(prefix) => write!(f, ":prefix={prefix}"),
            Scope::Category(category) => write!(f, ":category={category}"),
            Scope::Tag(tag) => write!(f, ":tag={tag}"),
        }
    }
}

impl Grant {
    /// Whether it grants everything.
    pub(super) fn is_administrator(&self) -> bool {
        self.role == Role::Admin && self.scope == Scope::All
    }

    fn grants(&self, right: Right) -> bool {
        match self.role {
            Role::Read => matches!(right, Right::Read | Right::ReadMetadata),
            Role::Append => right == Right::Write,
            Role::Admin => true,
        }
    }

    /// Whether it grants a right on a whole stream.
    pub(super) fn covers_stream(&self, right: Right, stream: &str, category: &str) -> bool {
        self.grants(right)
            && match &self.scope {
                Scope::All => self.role == Role::Admin || !is_system_stream(stream),
                Scope::Prefix(prefix) => {
                    stream.starts_with(prefix.as_str())
                        && (!is_system_stream(stream) || prefix.starts_with('$'))
                }
                Scope::Category(name) => name == category,
                Scope::Tag(_) => false,
            }
    }

    /// Whether it grants a right on an event by one of its tags.
    pub(super) fn covers_tags<'a>(
        &self,
        right: Right,
        mut tags: impl Iterator<Item = &'a str>,
    ) -> bool {
        match &self.scope {
            Scope::Tag(tag) => self.grants(right) && tags.any(|given| given == tag),
            _ => false,
        }
    }

    /// Whether it grants a right on events by a tag.
    pub(super) fn is_by_tag(&self, right: Right) -> bool {
        self.grants(right) && matches!(self.scope, Scope::Tag(_))
    }

    /// Whether it grants a right on every stream of users.
    pub(super) fn covers_user_streams(&self, right: Right) -> bool {
        self.grants(right) && self.scope == Scope::All
    }
}

/// Whether a stream is the system's: administrators alone may use it unless its list says otherwise. The progress that
/// clients note with their appends is theirs.
pub(super) fn is_system_stream(stream: &str) -> bool {
    stream.starts_with('$') && !stream.starts_with("$tracking-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> Grant {
        text.parse().unwrap()
    }

    #[test]
    fn every_grant_is_written_as_it_is_read_and_nothing_else_is_one() {
        for text in [
            "read",
            "append",
            "admin",
            "read:prefix=order-",
            "append:category=order",
            "admin:tag=tenant:7",
            "read:prefix=a=b",
        ] {
            assert_eq!(grant(text).to_string(), text);
        }
        for wrong in [
            "",
            "write",
            "read:",
            "read:prefix=",
            "read:stream=a",
            "read:category=",
            "Read",
        ] {
            assert!(wrong.parse::<Grant>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_grant_covers_its_scope_and_no_system_stream() {
        let covers = |text: &str, right, stream: &str| {
            let category = stream.split('-').next().unwrap();
            grant(text).covers_stream(right, stream, category)
        };
        assert!(covers("read", Right::Read, "order-1"));
        assert!(covers("read", Right::ReadMetadata, "order-1"));
        assert!(!covers("read", Right::Write, "order-1"));
        assert!(!covers("read", Right::Read, "$settings"));
        assert!(covers("admin", Right::Read, "$settings"));
        assert!(covers("append", Right::Write, "$tracking-shop"));
        assert!(covers("append:category=order", Right::Write, "order-1"));
        assert!(!covers("append:category=order", Right::Write, "orders-1"));
        assert!(covers("append:prefix=ord", Right::Write, "orders-1"));
        assert!(!covers("append:prefix=ord", Right::Delete, "orders-1"));
        assert!(covers("admin:prefix=ord", Right::Delete, "orders-1"));
        assert!(!covers("read:tag=a", Right::Read, "order-1"));
        assert!(grant("read:tag=a").covers_tags(Right::Read, ["b", "a"].into_iter()));
        assert!(!grant("read:tag=a").covers_tags(Right::Write, ["a"].into_iter()));
    }
}
