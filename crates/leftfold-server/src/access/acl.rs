//! Access control lists of streams.
//!
//! **Owns:** [`Acl`], its JSON form, and the lists that count where a stream has none. **Does not know:** users.
//! **Invariants:** a right that a list does not name is that of the defaults; a value of the wrong type names nobody, so that
//! a mistyped list opens nothing.

use serde_json::Value;

use super::{directory::ADMINS, grant::Right};

/// The role that everyone has who is authenticated.
const ALL: &str = "$all";

/// For each right, the users and groups that have it; `None`: the list does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Acl {
    read: Option<Vec<String>>,
    write: Option<Vec<String>>,
    delete: Option<Vec<String>>,
    read_metadata: Option<Vec<String>>,
    write_metadata: Option<Vec<String>>,
}

impl Acl {
    /// Reads the JSON form: an object with `$r`, `$w`, `$d`, `$mr` and `$mw`, each a text or a list of texts.
    pub(super) fn from_json(value: &Value) -> Self {
        let roles = |key: &str| {
            let value = value.get(key)?;
            Some(match value {
                Value::String(role) => vec![role.clone()],
                Value::Array(roles) => {
                    let texts = roles.iter().filter_map(Value::as_str);
                    texts.map(str::to_owned).collect()
                }
                _ => Vec::new(),
            })
        };
        Self {
            read: roles("$r"),
            write: roles("$w"),
            delete: roles("$d"),
            read_metadata: roles("$mr"),
            write_metadata: roles("$mw"),
        }
    }

    fn roles(&self, right: Right) -> Option<&[String]> {
        match right {
            Right::Read => self.read.as_deref(),
            Right::Write => self.write.as_deref(),
            Right::Delete => self.delete.as_deref(),
            Right::ReadMetadata => self.read_metadata.as_deref(),
            Right::WriteMetadata => self.write_metadata.as_deref(),
        }
    }

    /// Whether it gives a right; `None`: it does not say.
    pub(super) fn gives(&self, right: Right, login: &str, groups: &[String]) -> Option<bool> {
        let roles = self.roles(right)?;
        Some(
            roles
                .iter()
                .any(|role| role == ALL || role == login || groups.contains(role)),
        )
    }
}

/// The lists that count where a stream has none, from `$settings`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DefaultAcls {
    user_streams: Acl,
    system_streams: Acl,
}

impl DefaultAcls {
    /// Reads the data of an event of `$settings`.
    pub(super) fn from_json(data: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(data).unwrap_or_default();
        let acl = |key: &str| value.get(key).map(Acl::from_json).unwrap_or_default();
        Self {
            user_streams: acl("$userStreamAcl"),
            system_streams: acl("$systemStreamAcl"),
        }
    }

    /// Whether a right is given on a stream that does not say: on those of users to everyone who is authenticated, on those
    /// of the system to administrators, unless `$settings` say otherwise.
    pub(super) fn gives(
        &self,
        right: Right,
        is_system: bool,
        login: &str,
        groups: &[String],
    ) -> bool {
        if is_system {
            let given = self.system_streams.gives(right, login, groups);
            given.unwrap_or_else(|| groups.iter().any(|group| group == ADMINS))
        } else {
            self.user_streams
                .gives(right, login, groups)
                .unwrap_or(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_gives_what_it_names_and_leaves_the_rest_to_the_defaults() {
        let acl =
            Acl::from_json(&json!({"$r": "ann", "$w": ["ann", "writers"], "$d": 7, "$mr": "$all"}));
        let gives = |right, login: &str, groups: &[&str]| {
            let groups: Vec<_> = groups.iter().map(ToString::to_string).collect();
            acl.gives(right, login, &groups)
        };
        assert_eq!(gives(Right::Read, "ann", &[]), Some(true));
        assert_eq!(gives(Right::Read, "bob", &["writers"]), Some(false));
        assert_eq!(gives(Right::Write, "bob", &["writers"]), Some(true));
        assert_eq!(
            gives(Right::Delete, "ann", &["$admins"]),
            Some(false),
            "mistyped"
        );
        assert_eq!(gives(Right::ReadMetadata, "bob", &[]), Some(true));
        assert_eq!(gives(Right::WriteMetadata, "ann", &[]), None);
    }

    #[test]
    fn without_settings_user_streams_are_open_and_system_streams_are_not() {
        let none = DefaultAcls::default();
        let admins = [ADMINS.to_owned()];
        assert!(none.gives(Right::Write, false, "ann", &[]));
        assert!(!none.gives(Right::Read, true, "ann", &[]));
        assert!(none.gives(Right::Read, true, "ann", &admins));
        let closed = DefaultAcls::from_json(
            br#"{"$userStreamAcl":{"$w":"writers"},"$systemStreamAcl":{"$r":"$all"}}"#,
        );
        assert!(!closed.gives(Right::Write, false, "ann", &[]));
        assert!(closed.gives(Right::Read, false, "ann", &[]));
        assert!(closed.gives(Right::Read, true, "ann", &[]));
        assert_eq!(DefaultAcls::from_json(b"no json"), DefaultAcls::default());
    }
}
