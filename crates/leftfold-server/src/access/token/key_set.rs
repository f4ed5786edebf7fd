//! The public keys of an issuer: a JSON Web Key Set.
//!
//! **Owns:** [`KeySet`]: reading a set (RFC 7517), and the key that verifies a token. **Does not know:** where a set comes from.
//! **Invariants:** a key verifies by asymmetric algorithms only, and by no other than its type and its `alg` say; keys for
//! encryption and symmetric keys are passed over; size and number of keys are bounded.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::signature::ALGORITHMS;

/// Bytes of a set, at most.
pub(super) const BYTES_MAX: usize = 256 * 1024;
/// Keys of a set, at most.
const KEYS_MAX: usize = 100;

/// Why a text is no set of keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidKeySet {
    #[error("not a JSON Web Key Set: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("{0} keys; expected at most {KEYS_MAX}")]
    TooMany(usize),
    #[error("no key can verify a signature by {}", names())]
    NoKey,
}

/// The names of the algorithms that are verified.
pub(super) fn names() -> String {
    let names: Vec<_> = ALGORITHMS.iter().map(|it| format!("{it:?}")).collect();
    names.join(", ")
}

/// A key that verifies tokens.
pub(super) struct IssuerKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// The key that a token asks for.
pub(super) enum Found<'a> {
    Key(&'a IssuerKey),
    /// There is a key of the id, and it does not verify by the algorithm.
    OtherAlgorithm,
    Unknown,
}

/// The keys of an issuer.
pub(super) struct KeySet {
    keys: Vec<IssuerKey>,
    /// The text that they were read from.
    document: Vec<u8>,
    /// Rises with each set of an issuer that differs from the one before.
    pub(super) generation: u64,
}

#[derive(Deserialize)]
struct Document {
    /// Read one by one, for a set may have keys of kinds that are not known here.
    keys: Vec<Value>,
}

impl KeySet {
    pub(super) fn read(document: Vec<u8>, generation: u64) -> Result<Self, InvalidKeySet> {
        let Document { keys } = serde_json::from_slice(&document)?;
        if keys.len() > KEYS_MAX {
            return Err(InvalidKeySet::TooMany(keys.len()));
        }
        let keys: Vec<_> = keys.into_iter().filter_map(IssuerKey::read).collect();
        if keys.is_empty() {
            return Err(InvalidKeySet::NoKey);
        }
        Ok(Self {
            keys,
            document,
            generation,
        })
    }

    pub(super) fn is_read_from(&self, document: &[u8]) -> bool {
        self.document == document
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Finds the key of an id. A token may leave the id out if only one key verifies by its algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found<'_> {
        let verifies = |key: &&IssuerKey| key.algorithms.contains(&algorithm);
        let Some(id) = id else {
            let mut keys = self.keys.iter().filter(verifies);
            return match (keys.next(), keys.next()) {
                (Some(key), None) => Found::Key(key),
                _ => Found::Unknown,
            };
        };
        let of_id = |key: &&IssuerKey| key.id.as_deref() == Some(id);
        match self.keys.iter().filter(of_id).find(verifies) {
            Some(key) => Found::Key(key),
            None if self.keys.iter().any(|key| of_id(&key)) => Found::OtherAlgorithm,
            None => Found::Unknown,
        }
    }
}

impl IssuerKey {
    /// `None`: the key is of another kind, or for something else than verifying.
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let is_for_signatures = matches!(
            jwk.common.public_key_use,
            None | Some(PublicKeyUse::Signature)
        );
        let operations = jwk.common.key_operations.as_deref();
        let verifies = operations.is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !is_for_signatures || !verifies {
            return None;
        }
        let mut algorithms = algorithms_of(&jwk.algorithm);
        if let Some(only) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| KeyAlgorithm::from(*algorithm) == only);
        }
        if algorithms.is_empty() {
            return None;
        }
        Some(Self {
            key: DecodingKey::from_jwk(&jwk).ok()?,
            id: jwk.common.key_id,
            algorithms,
        })
    }
}

/// The algorithms that a key of a kind can verify by.
fn algorithms_of(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    match parameters {
        AlgorithmParameters::RSA(_) => {
            let is_rsa = |it: &Algorithm| it.family() == AlgorithmFamily::Rsa;
            ALGORITHMS.into_iter().filter(is_rsa).collect()
        }
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(keys: Value) -> Result<KeySet, InvalidKeySet> {
        KeySet::read(json!({ "keys": keys }).to_string().into_bytes(), 1)
    }

    fn ed25519(id: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    fn rsa(id: &str, more: &[(&str, Value)]) -> Value {
        let mut key = json!({"kty": "RSA", "kid": id, "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri", "e": "AQAB"});
        for (name, value) in more {
            key[*name] = value.clone();
        }
        key
    }

    #[test]
    fn a_key_verifies_by_the_algorithms_of_its_kind_and_no_other() {
        let keys = set(json!([rsa("r", &[]), ed25519("e")])).unwrap();
        assert_eq!(keys.len(), 2);
        assert!(matches!(
            keys.find(Some("r"), Algorithm::PS256),
            Found::Key(_)
        ));
        assert!(matches!(
            keys.find(Some("e"), Algorithm::EdDSA),
            Found::Key(_)
        ));
        for (id, algorithm) in [
            ("r", Algorithm::HS256),
            ("r", Algorithm::ES256),
            ("e", Algorithm::RS256),
        ] {
            let found = keys.find(Some(id), algorithm);
            assert!(matches!(found, Found::OtherAlgorithm), "{id} {algorithm:?}");
        }
        assert!(matches!(
            keys.find(Some("x"), Algorithm::RS256),
            Found::Unknown
        ));
    }

    #[test]
    fn the_algorithm_that_a_key_names_is_its_only_one() {
        let keys = set(json!([rsa("r", &[("alg", json!("RS512"))])])).unwrap();
        assert!(matches!(
            keys.find(Some("r"), Algorithm::RS512),
            Found::Key(_)
        ));
        assert!(matches!(
            keys.find(Some("r"), Algorithm::RS256),
            Found::OtherAlgorithm
        ));
    }

    #[test]
    fn an_id_may_be_left_out_while_one_key_fits() {
        let keys = set(json!([rsa("r", &[]), ed25519("e")])).unwrap();
        assert!(matches!(keys.find(None, Algorithm::EdDSA), Found::Key(_)));
        let keys = set(json!([ed25519("d"), ed25519("e")])).unwrap();
        assert!(matches!(keys.find(None, Algorithm::EdDSA), Found::Unknown));
    }

    #[test]
    fn keys_for_something_else_are_passed_over_and_a_set_without_any_is_refused() {
        let encryption = rsa("a", &[("use", json!("enc"))]);
        let signing = rsa("b", &[("key_ops", json!(["sign"]))]);
        let symmetric = json!({"kty": "oct", "kid": "c", "k": "c2VjcmV0"});
        let unknown = json!({"kty": "PQ", "kid": "d"});
        let others = json!([encryption, signing, symmetric, unknown, "no key"]);
        assert!(matches!(set(others), Err(InvalidKeySet::NoKey)));
        assert!(matches!(
            KeySet::read(b"{}".into(), 1),
            Err(InvalidKeySet::Syntax(_))
        ));
        let many: Vec<_> = (0..=KEYS_MAX).map(|_| ed25519("e")).collect();
        assert!(matches!(set(json!(many)), Err(InvalidKeySet::TooMany(101))));
    }
}
