//! From the claims of a token to a user and its groups.
//!
//! **Owns:** [`ClaimMapping`]: which claims count, and which groups they give. **Does not know:** signatures, rights.
//! **Invariants:** a group whose name begins with `$` is given by the settings only, never by an issuer alone; the name of a
//! user is never that of such a group.

use std::sync::Arc;

use serde_json::Value;

use super::TokenRejection;
use crate::{GroupNames, Settings};

/// Bytes of the name of a user, at most: as many as a subject of OpenID Connect may have.
const USER_BYTES_MAX: usize = 255;
/// Groups that a token may name, and bytes of each, at most.
const GROUPS_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 128;

/// Which claims name a user and its groups.
pub(super) struct ClaimMapping {
    user: String,
    groups: String,
    names: GroupNames,
}

impl ClaimMapping {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            user: settings.jwt_user_claim.clone(),
            groups: settings.jwt_groups_claim.clone(),
            names: settings.jwt_group_names.clone(),
        }
    }

    /// The name of the user.
    pub(super) fn user(&self, claims: &Value) -> Result<Arc<str>, TokenRejection> {
        let name = claim(claims, &self.user).and_then(Value::as_str);
        let fits = |name: &&str| {
            (1..=USER_BYTES_MAX).contains(&name.len())
                && !name.starts_with('$')
                && name.chars().all(|c| c.is_ascii_graphic())
        };
        name.filter(fits).map(Arc::from).ok_or(TokenRejection::User)
    }

    /// The groups of the user. A token without the claim gives none.
    pub(super) fn groups(&self, claims: &Value) -> Result<Arc<[String]>, TokenRejection> {
        let invalid = TokenRejection::Groups;
        let named: Vec<&str> = match claim(claims, &self.groups) {
            None | Some(Value::Null) => Vec::new(),
            // As the claim `scope` has them.
            Some(Value::String(text)) => text.split_whitespace().collect(),
            Some(Value::Array(names)) => {
                let names = names.iter().map(Value::as_str);
                names.collect::<Option<_>>().ok_or(invalid)?
            }
            Some(_) => return Err(invalid),
        };
        if named.len() > GROUPS_MAX || named.iter().any(|name| name.len() > GROUP_BYTES_MAX) {
            return Err(invalid);
        }
        let given = named.into_iter().filter_map(|name| self.group(name));
        Ok(given.collect())
    }

    fn group(&self, name: &str) -> Option<String> {
        match self.names.group(name) {
            Some(group) => Some(group.to_owned()),
            None => (!name.starts_with('$')).then(|| name.to_owned()),
        }
    }
}

/// A claim by its name, or by a JSON pointer (RFC 6901), which begins with a slash.
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    if name.starts_with('/') {
        claims.pointer(name)
    } else {
        claims.get(name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mapping(given: &[(&str, &str)]) -> ClaimMapping {
        let mut settings = Settings::default();
        for (name, value) in given {
            settings.set(name, value).unwrap();
        }
        ClaimMapping::of(&settings)
    }

    #[test]
    fn a_name_is_plain_ascii_and_not_that_of_a_group_of_the_server() {
        let mapping = mapping(&[]);
        for name in ["ann", "system:serviceaccount:shop:mailer", "auth0|42"] {
            assert_eq!(&*mapping.user(&json!({ "sub": name })).unwrap(), name);
        }
        let long = "a".repeat(USER_BYTES_MAX + 1);
        for wrong in [
            json!({}),
            json!({"sub": 7}),
            json!({"sub": ""}),
            json!({"sub": "$all"}),
            json!({"sub": "ann smith"}),
            json!({"sub": "ann\n"}),
            json!({"sub": long}),
        ] {
            assert_eq!(mapping.user(&wrong), Err(TokenRejection::User), "{wrong}");
        }
    }

    #[test]
    fn an_issuer_gives_the_groups_of_the_server_only_as_the_settings_say() {
        let mapping = mapping(&[("jwt_group_names", "platform=$admins,sre=$ops")]);
        let groups = |claims: Value| mapping.groups(&claims).unwrap().to_vec();
        assert_eq!(
            groups(json!({"groups": ["platform", "shop", "$ops", "$admins"]})),
            ["$admins", "shop"]
        );
        assert_eq!(groups(json!({"groups": "sre shop"})), ["$ops", "shop"]);
        assert_eq!(groups(json!({})), Vec::<String>::new());
        for wrong in [json!({"groups": 7}), json!({"groups": ["a", 7]})] {
            assert_eq!(mapping.groups(&wrong), Err(TokenRejection::Groups));
        }
        let many = json!({"groups": vec!["a"; GROUPS_MAX + 1]});
        assert_eq!(mapping.groups(&many), Err(TokenRejection::Groups));
    }

    #[test]
    fn a_claim_within_others_is_found_by_a_pointer() {
        let mapping = mapping(&[
            ("jwt_user_claim", "preferred_username"),
            ("jwt_groups_claim", "/realm_access/roles"),
        ]);
        let claims = json!({"preferred_username": "ann", "realm_access": {"roles": ["shop"]}});
        assert_eq!(&*mapping.user(&claims).unwrap(), "ann");
        assert_eq!(mapping.groups(&claims).unwrap().to_vec(), ["shop"]);
    }
}
