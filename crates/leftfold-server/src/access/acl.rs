//! Access control lists of streams.
//!
//! **Owns:** [`Acl`], its JSON form, and the lists that count where a stream has none. **Does not know:** users.
//! **Invariants:** a right that a list does not name is that of the defaults; a value of the wrong type names nobody, so that
//! a mistyped list opens nothing.

use leftfold_store::StreamMetadata;
use serde_json::Value;

use super::grant::Right;

/// The group whose members may do everything.
pub(super) const ADMINS: &str = "$admins";
/// The role that everyone has who is authenticated.
const ALL: &str = "$all";

/// Users and groups that a list may name for one right. Lists stay in memory while the server runs.
const ROLES_MAX: usize = 1_024;
/// Bytes of one of them, at most: a longer name is nobody's.
const ROLE_BYTES_MAX: usize = 1_024;

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
    ///
    /// Anything else but null, which is no list, names nobody for every right.
    pub(super) fn from_json(value: &Value) -> Self {
        if !value.is_object() && !value.is_null() {
            let nobody = || Some(Vec::new());
            return Self {
                read: nobody(),
                write: nobody(),
                delete: nobody(),
                read_metadata: nobody(),
                write_metadata: nobody(),
            };
        }
        let roles = |key: &str| {
            let value = value.get(key)?;
            Some(match value {
                Value::String(role) if role.len() <= ROLE_BYTES_MAX => vec![role.clone()],
                // Who made it did not mean anyone in particular.
                Value::Array(roles) if roles.len() > ROLES_MAX => Vec::new(),
                Value::Array(roles) => {
                    let texts = roles.iter().filter_map(Value::as_str);
                    let texts = texts.filter(|text| text.len() <= ROLE_BYTES_MAX);
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
        // Read as the metadata of a stream is, so that what is given counts as given, whatever stands beside it.
        let settings = StreamMetadata::from_json(data);
        let acl = |key: &str| match settings.given(key) {
            Some(acl) => Acl::from_json(&acl),
            None => Acl::default(),
        };
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
    fn what_is_no_list_names_nobody_and_null_is_none() {
        let read = |json| Acl::from_json(&json).gives(Right::Read, "ann", &[]);
        for mistyped in [json!("ann"), json!(["ann"]), json!(7), json!(true)] {
            assert_eq!(read(mistyped.clone()), Some(false), "{mistyped}");
        }
        assert_eq!(read(json!(null)), None);
        assert_eq!(read(json!({})), None);
    }

    #[test]
    fn a_list_that_names_more_than_it_may_names_nobody() {
        let read = |roles: usize| {
            let mut roles: Vec<_> = (1..roles).map(|nth| nth.to_string()).collect();
            roles.push("ann".to_owned());
            Acl::from_json(&json!({ "$r": roles })).gives(Right::Read, "ann", &[])
        };
        assert_eq!(read(ROLES_MAX), Some(true));
        assert_eq!(read(ROLES_MAX + 1), Some(false));
        let long = "x".repeat(ROLE_BYTES_MAX + 1);
        let kept = Acl::from_json(&json!({ "$r": long, "$w": [long, "ann"] }));
        assert_eq!(kept.read, Some(Vec::new()));
        assert_eq!(kept.write, Some(vec!["ann".to_owned()]));
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
        assert_eq!(DefaultAcls::from_json(b"[]"), DefaultAcls::default());
    }

    #[test]
    fn settings_that_are_no_json_give_nothing() {
        for settings in [
            r#"{"$userStreamAcl":{"$r":"ann"},"a":NaN}"#,
            "\u{feff}{\"$userStreamAcl\":{\"$r\":\"ann\"}}",
            "no json",
        ] {
            let acls = DefaultAcls::from_json(settings.as_bytes());
            assert!(!acls.gives(Right::Read, false, "bob", &[]), "{settings}");
        }
    }

    #[test]
    fn a_list_of_settings_counts_whatever_is_in_it_or_beside_it() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        for others in [
            r#"{"a":1e999}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"\ud800":1}"#,
            &deep,
        ] {
            let others = &others[1..others.len() - 1];
            for settings in [
                format!(r#"{{"$userStreamAcl":{{"$r":"ann"}},{others}}}"#),
                format!(r#"{{{others},"$userStreamAcl":{{"$r":"ann"}}}}"#),
                format!(r#"{{"$userStreamAcl":{{"$r":"ann",{others}}}}}"#),
            ] {
                let acls = DefaultAcls::from_json(settings.as_bytes());
                assert!(!acls.gives(Right::Read, false, "bob", &[]), "{settings}");
            }
        }
    }
}
