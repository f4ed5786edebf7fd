//! The keys of the issuer, kept current.
//!
//! **Owns:** [`IssuerKeys`]: reading the keys from a file or fetching them, in the background and for keys that are unknown.
//! **Does not know:** tokens.
//! **Invariants:** keys that cannot be used never replace those in use; the number of fetches does not depend on the number of
//! tokens; each fetch is bounded in time and bytes, follows no redirection, and goes to https or to this machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use leftfold_model::ErrorChain;
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    error::TokenSettingsError,
    key_set::{self, InvalidKeySet, KeySet},
};
use crate::Settings;

/// Interval at which keys are fetched again.
const FETCH_EVERY: Duration = Duration::from_mins(5);
/// Interval at which a file of keys is read again.
const READ_EVERY: Duration = Duration::from_secs(10);
/// Pause after keys could not be had.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// The least time between two searches for keys, however many tokens name an unknown one.
const REFETCH_AFTER: Duration = Duration::from_secs(10);
/// Timeout for a connection to the issuer, and for a whole answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Where an issuer describes itself, below its address (OpenID Connect Discovery 1.0).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Why keys could not be had.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error("file not read")]
    File(#[from] io::Error),
    #[error("issuer not reached")]
    Fetch(#[from] reqwest::Error),
    #[error("issuer answered {0}; expected 200")]
    Status(reqwest::StatusCode),
    #[error("answer longer than {} bytes", key_set::BYTES_MAX)]
    TooLong,
    #[error("description of the issuer is no JSON of OpenID Connect")]
    Discovery(#[from] serde_json::Error),
    #[error("issuer describes itself as {0:?}; expected the setting jwt_issuer")]
    OtherIssuer(String),
    #[error("jwks_uri of the issuer is {0:?}; expected https, or http on a loopback address")]
    KeysAddress(String),
    #[error(transparent)]
    Keys(#[from] InvalidKeySet),
}

/// Where keys come from.
enum KeySource {
    File(PathBuf),
    /// The set itself.
    Address(Client, Url),
    /// The description of the issuer, which names the set.
    Discovery(Client, Url, String),
}

/// What of a description counts.
#[derive(Deserialize)]
struct Description {
    issuer: String,
    jwks_uri: String,
}

/// The keys of the issuer.
pub(super) struct IssuerKeys {
    source: KeySource,
    current: ArcSwapOption<KeySet>,
    /// When the keys were last looked for; held while they are.
    refreshed: Mutex<Option<Instant>>,
    /// Whether keys were found then.
    is_current: AtomicBool,
}

impl IssuerKeys {
    /// Reads the keys if they are in a file.
    pub(super) fn of(settings: &Settings) -> Result<Self, TokenSettingsError> {
        let (file, address) = (&settings.jwt_keys_file, &settings.jwt_keys_url);
        let (source, current) = match (file.as_str(), address.as_str()) {
            ("", "") => {
                let issuer = &settings.jwt_issuer;
                let described = format!("{}{DISCOVERY}", issuer.trim_end_matches('/'));
                let url = address_of("jwt_issuer", &described, issuer)?;
                (
                    KeySource::Discovery(client(&url)?, url, issuer.clone()),
                    None,
                )
            }
            ("", given) => {
                let url = address_of("jwt_keys_url", given, given)?;
                (KeySource::Address(client(&url)?, url), None)
            }
            (file, "") => {
                let file = PathBuf::from(file);
                let read = read_file(&file).map_err(|source| TokenSettingsError::Read {
                    file: file.clone(),
                    source,
                })?;
                let keys = KeySet::read(read, 1).map_err(|invalid| TokenSettingsError::Keys {
                    file: file.clone(),
                    reason: invalid.to_string(),
                })?;
                (KeySource::File(file), Some(Arc::new(keys)))
            }
            (_, _) => return Err(TokenSettingsError::TwoSources),
        };
        Ok(Self {
            source,
            current: ArcSwapOption::new(current),
            refreshed: Mutex::new(None),
            is_current: AtomicBool::new(false),
        })
    }

    /// The keys; `None`: none could be had yet.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load_full()
    }

    /// Keeps the keys current until the handle is dropped.
    pub(super) fn keep_current(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let keys = Arc::clone(self);
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                keys.refresh_if_due().await;
                let pause = match (&keys.source, keys.is_current.load(Ordering::Relaxed)) {
                    (KeySource::File(_), _) => READ_EVERY,
                    (_, true) => FETCH_EVERY,
                    (_, false) => RETRY_AFTER,
                };
                tokio::time::sleep(pause).await;
            }
        }))
    }

    /// Looks for the keys again, unless that was done a moment ago. Waits for a search under way.
    pub(super) async fn refresh_if_due(&self) {
        let mut refreshed = self.refreshed.lock().await;
        if refreshed.is_none_or(|at| at.elapsed() >= REFETCH_AFTER) {
            let succeeded = self.refresh().await;
            self.is_current.store(succeeded, Ordering::Relaxed);
            *refreshed = Some(Instant::now());
        }
    }

    /// Looks for the keys once, and returns how many there are. Those in use stay.
    pub(super) async fn count(&self) -> Result<usize, TokenSettingsError> {
        let read = self.source.read().await;
        let read = read.and_then(|document| Ok(KeySet::read(document, 1)?.len()));
        read.map_err(|error| TokenSettingsError::Unavailable {
            reason: ErrorChain(&error).to_string(),
        })
    }

    /// Returns whether keys could be had; logs if not, and if they have changed.
    async fn refresh(&self) -> bool {
        let current = self.current();
        let read = self.source.read().await.and_then(|document| {
            if current
                .as_ref()
                .is_some_and(|keys| keys.is_read_from(&document))
            {
                return Ok(None);
            }
            let generation = current.as_ref().map_or(1, |keys| keys.generation + 1);
            Ok(Some(KeySet::read(document, generation)?))
        });
        match read {
            Ok(None) => true,
            Ok(Some(keys)) => {
                tracing::info!(keys = keys.len(), "keys of tokens loaded");
                self.current.store(Some(Arc::new(keys)));
                true
            }
            Err(error) => {
                let error = ErrorChain(&error);
                match current {
                    Some(_) => {
                        tracing::error!(%error, "keys of tokens not refreshed, the earlier ones stay in use")
                    }
                    None => {
                        tracing::error!(%error, "keys of tokens not loaded, tokens are rejected until they are")
                    }
                }
                false
            }
        }
    }
}

impl KeySource {
    async fn read(&self) -> Result<Vec<u8>, KeysError> {
        match self {
            Self::File(file) => {
                let file = file.clone();
                // A file may be on a slow disk.
                let read = tokio::task::spawn_blocking(move || read_file(&file)).await;
                Ok(read.map_err(io::Error::other)??)
            }
            Self::Address(client, url) => fetch(client, url.clone()).await,
            Self::Discovery(client, url, issuer) => {
                let described: Description =
                    serde_json::from_slice(&fetch(client, url.clone()).await?)?;
                if described.issuer != *issuer {
                    return Err(KeysError::OtherIssuer(described.issuer));
                }
                let keys = Url::parse(&described.jwks_uri).ok().filter(is_safe);
                let keys = keys.ok_or(KeysError::KeysAddress(described.jwks_uri))?;
                fetch(client, keys).await
            }
        }
    }
}

/// Reads a file of keys, unless it is longer than a set may be.
fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    let length = fs::metadata(file)?.len();
    if usize::try_from(length).is_ok_and(|length| length <= key_set::BYTES_MAX) {
        return fs::read(file);
    }
    let text = format!("longer than {} bytes", key_set::BYTES_MAX);
    Err(io::Error::new(io::ErrorKind::FileTooLarge, text))
}

/// Gets a document, no more of it than a set may have.
async fn fetch(client: &Client, url: Url) -> Result<Vec<u8>, KeysError> {
    let mut response = client.get(url).send().await?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(KeysError::Status(response.status()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > key_set::BYTES_MAX {
            return Err(KeysError::TooLong);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn client(url: &Url) -> Result<Client, TokenSettingsError> {
    let builder = Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(FETCH_TIMEOUT);
    // Nothing that is meant for this machine goes through a proxy.
    let builder = match url.scheme() {
        "http" => builder.no_proxy(),
        _ => builder.https_only(true),
    };
    builder
        .build()
        .map_err(|error| TokenSettingsError::Client(ErrorChain(&error).to_string()))
}

/// An address that a setting gives.
fn address_of(
    setting: &'static str,
    address: &str,
    given: &str,
) -> Result<Url, TokenSettingsError> {
    let url = Url::parse(address).ok().filter(is_safe);
    url.ok_or_else(|| TokenSettingsError::Address {
        setting,
        given: given.to_owned(),
    })
}

/// Whether nobody between here and there can change what is fetched; addresses with credentials are none.
fn is_safe(url: &Url) -> bool {
    let plain = url.username().is_empty() && url.password().is_none();
    plain
        && match (url.scheme(), url.host_str()) {
            ("https", Some(_)) => true,
            ("http", Some(host)) => {
                let host = host.trim_matches(['[', ']']);
                let address = host.parse::<std::net::IpAddr>();
                host == "localhost" || address.is_ok_and(|address| address.is_loopback())
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::Algorithm;

    use super::{super::key_set::Found, *};

    fn document(id: &str) -> String {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        format!(r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "kid": "{id}", "x": "{x}"}}]}}"#)
    }

    fn has(keys: &IssuerKeys, id: &str) -> bool {
        let current = keys.current().unwrap();
        matches!(current.find(Some(id), Algorithm::EdDSA), Found::Key(_))
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_looked_for_again_for_a_missing_one_but_not_often_and_bad_ones_are_not_taken()
    {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys.json");
        fs::write(&file, document("a")).unwrap();
        let mut settings = Settings::default();
        settings
            .set("jwt_keys_file", file.to_str().unwrap())
            .unwrap();
        let keys = IssuerKeys::of(&settings).unwrap();
        assert!(has(&keys, "a"));
        keys.refresh_if_due().await;
        let generation = keys.current().unwrap().generation;
        fs::write(&file, document("b")).unwrap();
        keys.refresh_if_due().await;
        assert!(!has(&keys, "b"), "that was done a moment ago");
        tokio::time::advance(REFETCH_AFTER).await;
        keys.refresh_if_due().await;
        assert!(has(&keys, "b") && !has(&keys, "a"));
        assert_eq!(keys.current().unwrap().generation, generation + 1);
        for bad in [
            "no set",
            "{\"keys\": []}",
            &" ".repeat(key_set::BYTES_MAX + 1),
        ] {
            fs::write(&file, bad).unwrap();
            tokio::time::advance(REFETCH_AFTER).await;
            keys.refresh_if_due().await;
            assert!(has(&keys, "b"), "the last good keys stay");
        }
    }

    #[test]
    fn keys_come_by_https_or_from_this_machine() {
        let safe = |text: &str| Url::parse(text).is_ok_and(|url| is_safe(&url));
        for good in [
            "https://issuer.example/tenant",
            "http://127.0.0.1:8080/",
            "http://[::1]:8080/",
            "http://localhost:8080/",
        ] {
            assert!(safe(good), "{good}");
        }
        for bad in [
            "http://issuer.example/",
            "http://localhost.example/",
            "https://user:password@issuer.example/",
            "file:///etc/passwd",
            "issuer.example",
        ] {
            assert!(!safe(bad), "{bad}");
        }
    }
}
