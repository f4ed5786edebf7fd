//! From the headers of a request to its principal.
//!
//! **Owns:** [`Authenticator`]: reading credentials, verifying them, remembering what was verified, limiting failures.
//! **Does not know:** rights; how a wire tells that a request is rejected.
//! **Invariants:** a password is verified on a thread that may take its time, and few at a time; what fails is not
//! remembered as verified; no error and no log line holds a credential; a wrong login and a wrong password look alike.

use std::{net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_core::future::BoxFuture;
use http::{HeaderMap, header::AUTHORIZATION};
use quick_cache::sync::Cache;
use ring::{hmac, rand::SystemRandom};
use tokio::sync::Semaphore;

use super::{
    api_key::{PREFIX, PresentedKey},
    directory::Directory,
    failure_limit::FailureLimiter,
    password,
    principal::Principal,
};
use crate::connection::{Peer, address_block};

/// Passwords that were verified and are remembered, at most.
const VERIFIED_MAX: usize = 4096;
/// Passwords that are verified at a time; each takes a core and 19 MiB.
const VERIFYING_MAX: usize = 2;
/// Requests whose passwords wait to be verified, at most.
const WAITING_MAX: usize = 128;
/// Failures that an address may have at once, and the time for one more.
const ADDRESS_FAILURES: (u32, Duration) = (10, Duration::from_secs(6));
/// Failures that a login may have at once from all addresses, and the time for one more.
const LOGIN_FAILURES: (u32, Duration) = (50, Duration::from_secs(2));

/// Why a request has no principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthenticationError {
    /// It names nobody.
    #[error(
        "credentials missing; expected a user by Basic, an API key by Bearer, or a client certificate"
    )]
    Missing,
    /// The header is not understood.
    #[error("credentials malformed; expected authorization: Basic or Bearer")]
    Malformed,
    /// They are of nobody.
    #[error("credentials wrong, expired or revoked")]
    Wrong,
    /// The address or the login failed too often.
    #[error("too many failed authentications; retry in {} s", .0.as_secs().max(1))]
    TooManyFailures(Duration),
    /// Too many requests wait for the verification of their passwords.
    #[error("too many authentications under way; retry later")]
    Busy,
}

/// How far authentication is.
pub(crate) enum Authentication {
    /// It is over.
    Done(Result<Principal, AuthenticationError>),
    /// A password has to be verified.
    Verifying(BoxFuture<'static, Result<Principal, AuthenticationError>>),
}

/// A password that was verified.
#[derive(Debug, Clone)]
struct Verified(Principal);

/// Verifies credentials. One for each server.
pub(crate) struct Authenticator(Arc<Verifier>);

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

struct Verifier {
    directory: Arc<Directory>,
    /// By a keyed hash of login and password, so that neither is kept.
    verified: Cache<[u8; 32], Verified>,
    /// `None`: the system gave no random bytes, so nothing is remembered.
    cache_key: Option<hmac::Key>,
    verifying: Semaphore,
    waiting: Semaphore,
    address_failures: FailureLimiter<IpAddr>,
    login_failures: FailureLimiter<String>,
}

/// What a request says about who it is from.
enum Credentials {
    None,
    Malformed,
    Password { login: String, password: String },
    Key(String),
}

impl Credentials {
    fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return if headers.contains_key(AUTHORIZATION) {
                Self::Malformed
            } else {
                Self::None
            };
        };
        let parsed = value.to_str().ok().and_then(|text| {
            let (scheme, rest) = text.split_once(' ')?;
            if scheme.eq_ignore_ascii_case("bearer") {
                return Some(Self::Key(rest.trim().to_owned()));
            }
            if !scheme.eq_ignore_ascii_case("basic") {
                return None;
            }
            let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            let (login, password) = decoded.split_once(':')?;
            // Clients that know Basic only give a key as the password.
            Some(if password.starts_with(PREFIX) {
                Self::Key(password.to_owned())
            } else {
                Self::Password {
                    login: login.to_owned(),
                    password: password.to_owned(),
                }
            })
        });
        parsed.unwrap_or(Self::Malformed)
    }
}

impl Authenticator {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        let random = SystemRandom::new();
        Self(Arc::new(Verifier {
            directory,
            verified: Cache::new(VERIFIED_MAX),
            cache_key: hmac::Key::generate(hmac::HMAC_SHA256, &random).ok(),
            verifying: Semaphore::new(VERIFYING_MAX),
            waiting: Semaphore::new(WAITING_MAX),
            address_failures: FailureLimiter::new(ADDRESS_FAILURES.0, ADDRESS_FAILURES.1),
            login_failures: FailureLimiter::new(LOGIN_FAILURES.0, LOGIN_FAILURES.1),
        }))
    }

    /// Finds out who a request is from.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Authentication {
        let verifier = &self.0;
        let address = address_block(peer.address.ip());
        match Credentials::of(headers) {
            Credentials::Malformed => Authentication::Done(Err(AuthenticationError::Malformed)),
            Credentials::None => Authentication::Done(verifier.by_certificate(peer)),
            Credentials::Key(key) => Authentication::Done(verifier.by_key(&key, address)),
            Credentials::Password { login, password } => {
                let digest = verifier.digest(&login, &password);
                if let Some(principal) = verifier.remembered(digest.as_ref()) {
                    return Authentication::Done(Ok(principal));
                }
                let verifier = Arc::clone(verifier);
                Authentication::Verifying(Box::pin(async move {
                    verifier.by_password(login, password, digest, address).await
                }))
            }
        }
    }
}

impl Verifier {
    fn digest(&self, login: &str, password: &str) -> Option<[u8; 32]> {
        let mut context = hmac::Context::with_key(self.cache_key.as_ref()?);
        // A login has no colon.
        context.update(login.as_bytes());
        context.update(b":");
        context.update(password.as_bytes());
        context.sign().as_ref().try_into().ok()
    }

    fn remembered(&self, digest: Option<&[u8; 32]>) -> Option<Principal> {
        let Verified(principal) = self.verified.get(digest?)?;
        self.directory
            .read()
            .is_current(&principal)
            .then_some(principal)
    }

    fn by_certificate(&self, peer: &Peer) -> Result<Principal, AuthenticationError> {
        let Some(name) = &peer.certificate_name else {
            return Err(AuthenticationError::Missing);
        };
        let rights = self.directory.read();
        let user = rights.user(name).filter(|user| !user.value.disabled);
        user.map(|user| Principal::User {
            login: Arc::clone(name),
            credential: user.value.credential.as_str().into(),
        })
        .ok_or(AuthenticationError::Wrong)
    }

    fn by_key(&self, text: &str, address: IpAddr) -> Result<Principal, AuthenticationError> {
        let found = PresentedKey::parse(text)
            .and_then(|presented| self.directory.read().principal_of_key(&presented));
        if let Some(principal) = found {
            return Ok(principal);
        }
        if let Some(wait) = self.address_failures.wait(&address) {
            return Err(AuthenticationError::TooManyFailures(wait));
        }
        self.address_failures.note(&address);
        Err(AuthenticationError::Wrong)
    }

    async fn by_password(
        &self,
        login: String,
        password: String,
        digest: Option<[u8; 32]>,
        address: IpAddr,
    ) -> Result<Principal, AuthenticationError> {
        let _waits = self
            .waiting
            .try_acquire()
            .map_err(|_| AuthenticationError::Busy)?;
        let _verifies = self
            .verifying
            .acquire()
            .await
            .map_err(|_| AuthenticationError::Busy)?;
        // Looked at when it is this request's turn, so that requests sent all at once do not get past it.
        let waits = [
            self.address_failures.wait(&address),
            self.login_failures.wait(&login),
        ];
        if let Some(wait) = waits.into_iter().flatten().max() {
            return Err(AuthenticationError::TooManyFailures(wait));
        }
        // Of many requests with one password the first was verified meanwhile.
        if let Some(principal) = self.remembered(digest.as_ref()) {
            return Ok(principal);
        }
        let (hash, principal) = {
            let rights = self.directory.read();
            let user = rights.user(&login).filter(|user| !user.value.disabled);
            let principal = user.map(|user| Principal::User {
                login: login.as_str().into(),
                credential: user.value.credential.as_str().into(),
            });
            (user.map(|user| user.value.password_hash.clone()), principal)
        };
        let verify = move || password::verify(&password, hash.as_deref());
        let verified = tokio::task::spawn_blocking(verify).await.unwrap_or(false);
        match principal.filter(|_| verified) {
            Some(principal) => {
                if let Some(digest) = digest {
                    self.verified.insert(digest, Verified(principal.clone()));
                }
                Ok(principal)
            }
            None => {
                self.address_failures.note(&address);
                self.login_failures.note(&login);
                Err(AuthenticationError::Wrong)
            }
        }
    }
}
