//! API keys: their text form, and what is kept of them.
//!
//! **Owns:** making, reading and comparing keys. **Does not know:** where they are kept.
//! **Invariants:** the secret has 256 random bits and is kept as its SHA-256; comparing takes constant time.
//!
//! A slow hash protects secrets that people choose. This one cannot be guessed, so a fast hash is enough.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest;

use super::{password::random_bytes, registry::AccessError};

/// What every key begins with, so that scanners for secrets find it.
pub(super) const PREFIX: &str = "lfk_";
/// Bytes of the public part.
const ID_BYTES: usize = 9;
/// Bytes of the secret part.
const SECRET_BYTES: usize = 32;

/// A key that was just made. Its text is shown once and not kept.
pub struct NewApiKey {
    /// By which it is listed and revoked.
    pub id: String,
    /// The whole key, for its user.
    pub key: String,
    pub(super) secret_hash: String,
}

impl fmt::Debug for NewApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewApiKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl NewApiKey {
    pub(super) fn random() -> Result<Self, AccessError> {
        // The id stands in the name of a stream, whose category ends at the first dash, and before an underscore.
        let id = hex(&random_bytes::<ID_BYTES>()?);
        let secret = random_bytes::<SECRET_BYTES>()?;
        Ok(Self {
            key: format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret)),
            secret_hash: hash(&secret),
            id,
        })
    }
}

/// The parts of a key that a client sent.
pub(super) struct PresentedKey<'a> {
    pub(super) id: &'a str,
    secret: [u8; SECRET_BYTES],
}

impl<'a> PresentedKey<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let mut bytes = [0; SECRET_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(secret, &mut bytes).ok()?;
        (length == SECRET_BYTES && id.len() == ID_BYTES * 2).then_some(Self { id, secret: bytes })
    }

    /// Whether this is the key that is kept by this hash.
    pub(super) fn matches(&self, kept: &str) -> bool {
        let own = hash(&self.secret);
        own.len() == kept.len()
            && own
                .bytes()
                .zip(kept.bytes())
                .fold(0, |differs, (a, b)| differs | (a ^ b))
                == 0
    }
}

fn hash(secret: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, secret).as_ref())
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            use fmt::Write as _;
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_text_and_by_no_other() {
        let made = NewApiKey::random().unwrap();
        let presented = PresentedKey::parse(&made.key).unwrap();
        assert_eq!(presented.id, made.id);
        assert!(presented.matches(&made.secret_hash));
        let other = NewApiKey::random().unwrap();
        assert!(!presented.matches(&other.secret_hash));
        assert!(!presented.matches(""));
        assert!(!format!("{made:?}").contains(&made.key));
        for wrong in [
            "",
            "lfk_",
            "lfk_a_b",
            &made.key[1..],
            &made.key[..made.key.len() - 1],
        ] {
            assert!(PresentedKey::parse(wrong).is_none(), "{wrong}");
        }
    }
}
