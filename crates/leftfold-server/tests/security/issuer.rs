//! An issuer of tokens for one test: it signs what it is given, right or wrong.
//!
//! **Owns:** [`TestIssuer`]. **Does not know:** which tokens a server takes.

#![allow(dead_code, reason = "not every binary uses every helper")]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

/// The issuer and the audience of its right tokens.
pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "leftfold";

/// An issuer with one key, of ES256.
pub(crate) struct TestIssuer {
    id: &'static str,
    key: EcdsaKeyPair,
}

impl TestIssuer {
    pub(crate) fn new(id: &'static str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self {
            id,
            key: EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap(),
        }
    }

    /// The public key.
    pub(crate) fn jwk(&self) -> Value {
        // An uncompressed point: a byte that says so, then x and y.
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": encoded(x), "y": encoded(y),
        })
    }

    /// The set of its one key.
    pub(crate) fn keys(&self) -> String {
        json!({ "keys": [self.jwk()] }).to_string()
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": "ES256", "kid": self.id}), claims)
    }

    /// A token with this header, signed by ES256 whatever the header says.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        signed(header, claims, |message| {
            let signature = self.key.sign(&SystemRandom::new(), message).unwrap();
            signature.as_ref().to_vec()
        })
    }

    /// A token whose header says `none`, without a signature.
    pub(crate) fn unsigned(&self, claims: &Value) -> String {
        signed(&json!({"alg": "none", "kid": self.id}), claims, |_| {
            Vec::new()
        })
    }

    /// A token by HS256 whose secret is the public key, which everyone knows.
    pub(crate) fn by_public_key(&self, claims: &Value) -> String {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, self.key.public_key().as_ref());
        signed(
            &json!({"alg": "HS256", "kid": self.id}),
            claims,
            |message| hmac::sign(&secret, message).as_ref().to_vec(),
        )
    }
}

/// A token of a header, claims, and what signs both.
pub(crate) fn signed(
    header: &Value,
    claims: &Value,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> String {
    let [header, claims] = [header, claims].map(|part| encoded(part.to_string().as_bytes()));
    let message = format!("{header}.{claims}");
    let signature = encoded(&sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// Claims of a user that are right for an hour.
pub(crate) fn claims(user: &str, groups: &[&str]) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": user, "groups": groups, "exp": seconds_from_now(3600),
    })
}

/// These claims with others in their place.
pub(crate) fn with(mut claims: Value, others: &[(&str, Value)]) -> Value {
    for (name, value) in others {
        claims[*name] = value.clone();
    }
    claims
}

/// A time as tokens have it.
pub(crate) fn seconds_from_now(seconds: i64) -> i64 {
    let now = i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap();
    now + seconds
}

pub(crate) fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
