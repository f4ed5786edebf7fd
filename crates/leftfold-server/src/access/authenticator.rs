//! From the headers of a request to its principal.
//!
//! **Owns:** [`Authenticator`]: reading credentials, verifying them, remembering what was verified, limiting failures.
//! **Does not know:** rights; how a token is validated; how a wire tells that a request is rejected.
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
    token::{self, TokenRejection, TokenVerifier, Validated},
};
use crate::{
    blocking_threads::BlockingThreads,
    connection::{Peer, address_block},
};

/// Passwords that were verified and are remembered, at most.
const VERIFIED_MAX: usize = 4096;
/// Passwords that are verified at a time; each takes a core and 19 MiB.
const VERIFYING_MAX: usize = 2;
/// Requests whose passwords wait to be verified, and requests whose tokens wait for keys, at most.
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
        "credentials missing; expected a user by Basic, an API key or a token by Bearer, or a client certificate"
    )]
    Missing,
    /// The header is not understood.
    #[error("credentials malformed; expected authorization: Basic or Bearer")]
    Malformed,
    /// They are of nobody.
    #[error("credentials wrong, expired or revoked")]
    Wrong,
    /// The token does not count.
    #[error("token rejected: {0}")]
    Token(TokenRejection),
    /// The keys of the issuer of tokens could not be had yet.
    #[error("keys of the issuer of tokens not loaded; retry later")]
    KeysMissing,
    /// The address or the login failed too often.
    #[error("too many failed authentications; retry in {} s", .0.as_secs().max(1))]
    TooManyFailures(Duration),
    /// Too many requests wait for the verification of their credentials.
    #[error("too many authentications under way; retry later")]
    Busy,
}

/// How far authentication is.
pub(crate) enum Authentication {
    /// It is over.
    Done(Result<Principal, AuthenticationError>),
    /// A password has to be verified, or the keys of tokens have to be fetched.
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
    verifying: BlockingThreads,
    waiting: Semaphore,
    address_failures: FailureLimiter<IpAddr>,
    login_failures: FailureLimiter<String>,
    /// `None`: no issuer of tokens is named.
    tokens: Option<TokenVerifier>,
    /// Apart from `waiting`, so that an issuer that is slow holds up no password.
    waiting_for_keys: Semaphore,
}

/// What a request says about who it is from.
enum Credentials {
    None,
    Malformed,
    Password {
        login: String,
        password: String,
    },
    /// An API key or a token.
    Bearer(String),
}

impl Credentials {
    fn of(headers: &HeaderMap, takes_tokens: bool) -> Self {
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
                return Some(Self::Bearer(rest.trim().to_owned()));
            }
            if !scheme.eq_ignore_ascii_case("basic") {
                return None;
            }
            let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            let (login, password) = decoded.split_once(':')?;
            // Clients that know Basic only give a key or a token as the password.
            let is_bearer =
                password.starts_with(PREFIX) || takes_tokens && token::is_token(password);
            Some(if is_bearer {
                Self::Bearer(password.to_owned())
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
    pub(super) fn new(directory: Arc<Directory>, tokens: Option<TokenVerifier>) -> Self {
        let random = SystemRandom::new();
        Self(Arc::new(Verifier {
            directory,
            verified: Cache::new(VERIFIED_MAX),
            cache_key: hmac::Key::generate(hmac::HMAC_SHA256, &random).ok(),
            verifying: BlockingThreads::new(VERIFYING_MAX),
            waiting: Semaphore::new(WAITING_MAX),
            address_failures: FailureLimiter::new(ADDRESS_FAILURES.0, ADDRESS_FAILURES.1),
            login_failures: FailureLimiter::new(LOGIN_FAILURES.0, LOGIN_FAILURES.1),
            tokens,
            waiting_for_keys: Semaphore::new(WAITING_MAX),
        }))
    }

    /// Finds out who a request is from.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Authentication {
        let verifier = &self.0;
        let address = address_block(peer.address.ip());
        match Credentials::of(headers, verifier.tokens.is_some()) {
            Credentials::Malformed => Authentication::Done(Err(AuthenticationError::Malformed)),
            Credentials::None => Authentication::Done(verifier.by_certificate(peer)),
            Credentials::Bearer(text) => match &verifier.tokens {
                Some(tokens) if !text.starts_with(PREFIX) => {
                    match verifier.by_token(tokens, &text, address) {
                        Some(outcome) => Authentication::Done(outcome),
                        None => Authentication::Verifying(Box::pin(
                            Arc::clone(verifier).by_token_and_new_keys(text, address),
                        )),
                    }
                }
                _ => Authentication::Done(verifier.by_key(&text, address)),
            },
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

impl Authenticator {
    /// The principal that a ticket was issued to, if its credential still counts. A ticket without one is a failure of its
    /// address.
    pub(crate) fn admit_by_ticket(
        &self,
        found: Option<Principal>,
        peer: &Peer,
    ) -> Result<Principal, AuthenticationError> {
        self.0.by_secret(found, address_block(peer.address.ip()))
    }

    /// Verifies the password that a user names as the current one, under the limits of logins. It is not remembered.
    pub(crate) async fn verify_password(
        &self,
        login: &str,
        password: &str,
        peer: &Peer,
    ) -> Result<Principal, AuthenticationError> {
        let address = address_block(peer.address.ip());
        let (login, password) = (login.to_owned(), password.to_owned());
        Arc::clone(&self.0)
            .by_password(login, password, None, address)
            .await
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
        self.by_secret(found, address)
    }

    /// The principal of a secret that cannot be guessed, if it was found and still counts.
    fn by_secret(
        &self,
        found: Option<Principal>,
        address: IpAddr,
    ) -> Result<Principal, AuthenticationError> {
        let current = found.filter(|principal| self.directory.read().is_current(principal));
        if let Some(principal) = current {
            return Ok(principal);
        }
        self.check_failures(&address)?;
        self.address_failures.note(&address);
        Err(AuthenticationError::Wrong)
    }

    fn check_failures(&self, address: &IpAddr) -> Result<(), AuthenticationError> {
        match self.address_failures.wait(address) {
            Some(wait) => Err(AuthenticationError::TooManyFailures(wait)),
            None => Ok(()),
        }
    }

    /// `None`: the key that the token names has to be looked for.
    ///
    /// A token is validated in place: that takes less than the way to another thread and back would be worth, once for each
    /// token, and an address that failed too often has none validated.
    fn by_token(
        &self,
        tokens: &TokenVerifier,
        text: &str,
        address: IpAddr,
    ) -> Option<Result<Principal, AuthenticationError>> {
        if let Some(principal) = tokens.remembered(text) {
            return Some(self.admit(Ok(principal), address));
        }
        if let Err(limited) = self.check_failures(&address) {
            return Some(Err(limited));
        }
        match tokens.validate(text) {
            Validated::Done(outcome) => Some(self.admit(outcome, address)),
            Validated::KeyMissing => None,
        }
    }

    async fn by_token_and_new_keys(
        self: Arc<Self>,
        text: String,
        address: IpAddr,
    ) -> Result<Principal, AuthenticationError> {
        let busy = AuthenticationError::Busy;
        let tokens = self.tokens.as_ref().ok_or(AuthenticationError::Wrong)?;
        let _waits = self.waiting_for_keys.try_acquire().map_err(|_| busy)?;
        tokens.refresh_keys().await;
        // Looked at again, so that requests sent all at once do not get past it.
        self.check_failures(&address)?;
        match tokens.validate(&text) {
            Validated::Done(outcome) => self.admit(outcome, address),
            Validated::KeyMissing if tokens.has_keys() => {
                self.admit(Err(TokenRejection::UnknownKey), address)
            }
            Validated::KeyMissing => Err(AuthenticationError::KeysMissing),
        }
    }

    /// The principal of a token, if it counts at this moment; else a failure of its address.
    fn admit(
        &self,
        validated: Result<Principal, TokenRejection>,
        address: IpAddr,
    ) -> Result<Principal, AuthenticationError> {
        let admitted = validated.and_then(|principal| {
            let rights = self.directory.read();
            if rights.is_current(&principal) {
                return Ok(principal);
            }
            let taken = principal.login().and_then(|login| rights.user(login));
            Err(match taken {
                Some(_) => TokenRejection::UserOfStore,
                None => TokenRejection::Expired,
            })
        });
        admitted.map_err(|rejection| {
            self.address_failures.note(&address);
            AuthenticationError::Token(rejection)
        })
    }

    async fn by_password(
        self: Arc<Self>,
        login: String,
        password: String,
        digest: Option<[u8; 32]>,
        address: IpAddr,
    ) -> Result<Principal, AuthenticationError> {
        let _waits = self
            .waiting
            .try_acquire()
            .map_err(|_| AuthenticationError::Busy)?;
        let turn = self
            .verifying
            .turn()
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
        // Noted where it is verified: a caller who leaves meanwhile has failed all the same.
        let verifier = Arc::clone(&self);
        let verify = move || {
            let verified = password::verify(&password, hash.as_deref());
            if !verified {
                verifier.address_failures.note(&address);
                verifier.login_failures.note(&login);
            }
            verified
        };
        let verified = turn.run(verify).await.unwrap_or(false);
        let principal = principal.filter(|_| verified);
        if let (Some(principal), Some(digest)) = (&principal, digest) {
            self.verified.insert(digest, Verified(principal.clone()));
        }
        principal.ok_or(AuthenticationError::Wrong)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use futures_util::poll;
    use leftfold_store::MemoryStore;

    use super::{super::registry::Registry, *};

    #[tokio::test]
    async fn a_guess_whose_caller_left_before_the_answer_is_a_failure_too() {
        let directory = Arc::new(Directory::default());
        let registry = Registry::new(Arc::new(MemoryStore::new()), Arc::clone(&directory));
        let created = registry.create_user("ann", "correct horse", "Ann", vec![]);
        created.await.unwrap();
        let authenticator = Authenticator::new(directory, None);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let peer = Peer {
            address,
            certificate_name: None,
        };
        for _ in 0..ADDRESS_FAILURES.0 {
            let guess = authenticator.verify_password("ann", "a guess", &peer);
            assert!(poll!(Box::pin(guess)).is_pending(), "it began");
            authenticator.0.verifying.idle(2).await;
        }
        let refused = authenticator
            .verify_password("ann", "correct horse", &peer)
            .await;
        assert!(
            matches!(refused, Err(AuthenticationError::TooManyFailures(_))),
            "{refused:?}"
        );
    }
}
