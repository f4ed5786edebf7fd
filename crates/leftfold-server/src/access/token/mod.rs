//! JSON Web Tokens of an issuer, as OpenID Connect has them: validated, never made.
//!
//! **Owns:** [`TokenVerifier`]: from a token to its principal, and why there is none.
//! **Does not know:** users and keys of the store; limits on failures.
//! **Invariants:** `jsonwebtoken` validates, and `ring` does the arithmetic; the algorithm must be one of a fixed list of
//! asymmetric ones and one of the key that the token names; issuer, audience and expiry must be there; a principal ends when
//! its token does; no error and no log line holds a token.
//!
//! Sources: RFC 7519 (tokens), RFC 7515 (signatures), RFC 8725 (what to refuse), RFC 9068 (types).

mod claims;
mod error;
mod issuer_keys;
mod key_set;
mod signature;

use std::{fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};
use quick_cache::sync::Cache;
use ring::{hmac, rand::SystemRandom};
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

pub use self::error::TokenSettingsError;
use self::{claims::ClaimMapping, issuer_keys::IssuerKeys, key_set::Found, signature::ALGORITHMS};
use super::principal::Principal;
use crate::Settings;

/// Bytes of a token, at most.
const BYTES_MAX: usize = 16 * 1024;
/// Tokens that were verified and are remembered, at most.
const VERIFIED_MAX: usize = 4096;
/// The longest clock skew that settings may allow.
const CLOCK_SKEW_MAX: Duration = Duration::from_mins(5);

/// Why a token is rejected. What is said about claims is said of tokens whose signature is right only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRejection {
    #[error("not a signed JSON Web Token")]
    Malformed,
    #[error("algorithm not allowed; expected {}", key_set::names())]
    Algorithm,
    #[error("type not allowed; expected JWT or at+jwt")]
    Type,
    #[error("signed by a key that the issuer does not list")]
    UnknownKey,
    #[error("signature wrong")]
    Signature,
    #[error("issuer is another one")]
    Issuer,
    #[error("not meant for this server: audience is another one")]
    Audience,
    #[error("expired")]
    Expired,
    #[error("not valid yet")]
    NotYetValid,
    #[error("claim exp, nbf, iss or aud missing or invalid")]
    Claims,
    #[error(
        "claim of the user missing, or no name of 1 to 255 printable ASCII characters without spaces"
    )]
    User,
    #[error("claim of the groups invalid; expected at most 256 names of at most 128 bytes")]
    Groups,
    #[error("names a user that the store keeps")]
    UserOfStore,
}

/// How far the validation of a token came.
pub(super) enum Validated {
    Done(Result<Principal, TokenRejection>),
    /// The key that the token names is not known, or no key is.
    KeyMissing,
}

/// Validates the tokens of one issuer.
pub(crate) struct TokenVerifier {
    issuer: String,
    audience: String,
    clock_skew: Duration,
    mapping: ClaimMapping,
    keys: Arc<IssuerKeys>,
    /// By a keyed hash, so that no token is kept; with the generation of the keys it was verified by.
    verified: Cache<[u8; 32], (u64, Principal)>,
    /// `None`: the system gave no random bytes, so nothing is remembered.
    cache_key: Option<hmac::Key>,
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier").finish_non_exhaustive()
    }
}

impl TokenVerifier {
    /// Reads what the settings say about tokens; `None` if no issuer is named.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Option<Self>, TokenSettingsError> {
        let incomplete = |given, missing| Err(TokenSettingsError::Incomplete { given, missing });
        if settings.jwt_issuer.is_empty() {
            for (given, value) in [
                ("jwt_audience", &settings.jwt_audience),
                ("jwt_keys_file", &settings.jwt_keys_file),
                ("jwt_keys_url", &settings.jwt_keys_url),
            ] {
                if !value.is_empty() {
                    return incomplete(given, "jwt_issuer");
                }
            }
            return Ok(None);
        }
        if settings.jwt_audience.is_empty() {
            return incomplete("jwt_issuer", "jwt_audience");
        }
        if !settings.authenticates() {
            return Err(TokenSettingsError::AuthenticationOff);
        }
        let clock_skew = settings.jwt_clock_skew;
        if clock_skew > CLOCK_SKEW_MAX {
            return Err(TokenSettingsError::ClockSkew {
                seconds: clock_skew.as_secs(),
                max: CLOCK_SKEW_MAX.as_secs(),
            });
        }
        signature::use_ring();
        Ok(Some(Self {
            issuer: settings.jwt_issuer.clone(),
            audience: settings.jwt_audience.clone(),
            clock_skew,
            mapping: ClaimMapping::of(settings),
            keys: Arc::new(IssuerKeys::of(settings)?),
            verified: Cache::new(VERIFIED_MAX),
            cache_key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
        }))
    }

    /// Keeps the keys of the issuer current until the handle is dropped.
    pub(super) fn keep_keys_current(&self) -> AbortOnDropHandle<()> {
        self.keys.keep_current()
    }

    /// Looks for the keys of the issuer again, at most once in a while. Waits until that is done.
    pub(super) async fn refresh_keys(&self) {
        self.keys.refresh_if_due().await;
    }

    /// Whether there are keys to validate tokens by.
    pub(super) fn has_keys(&self) -> bool {
        self.keys.current().is_some()
    }

    /// The principal of a token that was verified before, by keys that still count.
    pub(super) fn remembered(&self, token: &str) -> Option<Principal> {
        let (generation, principal) = self.verified.get(&self.digest(token)?)?;
        (self.keys.current()?.generation == generation).then_some(principal)
    }

    /// Validates a token, and remembers it if it is right. Takes about a tenth of a millisecond.
    pub(super) fn validate(&self, token: &str) -> Validated {
        let header = match read_header(token) {
            Ok(header) => header,
            Err(rejection) => return Validated::Done(Err(rejection)),
        };
        let Some(keys) = self.keys.current() else {
            return Validated::KeyMissing;
        };
        match keys.find(header.kid.as_deref(), header.alg) {
            Found::Unknown => Validated::KeyMissing,
            Found::OtherAlgorithm => Validated::Done(Err(TokenRejection::Algorithm)),
            Found::Key(key) => {
                let validated = self.validate_by(token, header.alg, &key.key);
                if let (Ok(principal), Some(digest)) = (&validated, self.digest(token)) {
                    let remembered = (keys.generation, principal.clone());
                    self.verified.insert(digest, remembered);
                }
                Validated::Done(validated)
            }
        }
    }

    fn validate_by(
        &self,
        token: &str,
        algorithm: Algorithm,
        key: &jsonwebtoken::DecodingKey,
    ) -> Result<Principal, TokenRejection> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.clock_skew.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let decoded = decode::<Value>(token, key, &validation);
        let claims = decoded.map_err(|error| reason(error.kind()))?.claims;
        Ok(Principal::Token {
            login: self.mapping.user(&claims)?,
            groups: self.mapping.groups(&claims)?,
            expires: self.end(&claims).ok_or(TokenRejection::Claims)?,
        })
    }

    /// Until when a token counts: its expiry, and the skew that clocks may have.
    fn end(&self, claims: &Value) -> Option<Timestamp> {
        let expires = claims.get("exp")?;
        let seconds = match expires.as_u64() {
            Some(seconds) => i64::try_from(seconds).unwrap_or(i64::MAX),
            // The conversion saturates, and the library rounds as well.
            #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
            None => expires.as_f64()?.round() as i64,
        };
        let skew = SignedDuration::try_from(self.clock_skew).ok()?;
        let end = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        Some(end.saturating_add(skew).unwrap_or(Timestamp::MAX))
    }

    fn digest(&self, token: &str) -> Option<[u8; 32]> {
        let signed = hmac::sign(self.cache_key.as_ref()?, token.as_bytes());
        signed.as_ref().try_into().ok()
    }
}

/// Looks for the keys by which a server with these settings validates tokens, and returns how many there are; `None` if it takes
/// no tokens. For people who check an installation.
///
/// # Errors
/// [`TokenSettingsError`]: tokens cannot be validated with these settings, or not at this moment.
pub async fn count_token_keys(settings: &Settings) -> Result<Option<usize>, TokenSettingsError> {
    match TokenVerifier::from_settings(settings)? {
        Some(verifier) => verifier.keys.count().await.map(Some),
        None => Ok(None),
    }
}

/// Whether a text has the form of a token: three parts, the first of which is a JSON object.
pub(super) fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Reads the header of a token. Nothing in it is trusted before the signature is verified.
fn read_header(token: &str) -> Result<Header, TokenRejection> {
    if token.len() > BYTES_MAX {
        return Err(TokenRejection::Malformed);
    }
    let header = decode_header(token).map_err(|error| match error.kind() {
        // The library knows no `none`, and no algorithm beyond its own list.
        ErrorKind::Json(error) if error.is_data() => TokenRejection::Algorithm,
        _ => TokenRejection::Malformed,
    })?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(TokenRejection::Algorithm);
    }
    // A token of another kind by the issuer is none for access (RFC 8725, 3.11).
    let is_for_access = header.typ.as_deref().is_none_or(|typ| {
        let typ = typ.to_ascii_lowercase();
        matches!(typ.trim_start_matches("application/"), "jwt" | "at+jwt")
    });
    if is_for_access {
        Ok(header)
    } else {
        Err(TokenRejection::Type)
    }
}

/// What the library says is wrong.
fn reason(kind: &ErrorKind) -> TokenRejection {
    match kind {
        ErrorKind::InvalidSignature => TokenRejection::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenRejection::Algorithm,
        ErrorKind::InvalidIssuer => TokenRejection::Issuer,
        ErrorKind::InvalidAudience => TokenRejection::Audience,
        ErrorKind::ExpiredSignature => TokenRejection::Expired,
        ErrorKind::ImmatureSignature => TokenRejection::NotYetValid,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            TokenRejection::Claims
        }
        _ => TokenRejection::Malformed,
    }
}
