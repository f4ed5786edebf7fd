//! TLS on the server's port: certificates, client certificates, handshakes.
//!
//! **Owns:** [`TlsServer`]: reading the files, replacing them while the server runs, and handshakes within their bounds.
//! **Does not know:** HTTP, who a client certificate stands for.
//! **Invariants:** TLS 1.2 is the oldest version; files that cannot be used never replace those in use; the number of
//! handshakes at a time and the time for each are bounded.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::AbortOnDropHandle;

use crate::Settings;

/// Interval at which the files are compared with what is in use.
const RELOAD_EVERY: Duration = Duration::from_secs(10);
/// The protocols that are offered by ALPN, the preferred one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Only one of two settings that belong together is set.
    #[error("{missing} not set, {given} is; expected both or neither")]
    Incomplete {
        /// The setting that has a value.
        given: &'static str,
        /// The setting that needs one.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {setting} {}", file.display())]
    Read {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("invalid {setting} {}: {reason}; expected {expected}", file.display())]
    Content {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// Certificate and key cannot be used together.
    #[error("certificate and key cannot be used: {0}")]
    Identity(#[from] rustls::Error),
    /// The certificates of the authority for clients cannot be used.
    #[error("client certificate authority cannot be used: {0}")]
    ClientAuthority(#[from] VerifierBuilderError),
}

/// The files that the settings name.
#[derive(Debug, Clone)]
struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_certificate_required: bool,
}

/// What the files held when they were read.
#[derive(PartialEq, Eq)]
struct FileContents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// The server's side of TLS.
pub(crate) struct TlsServer {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    contents: Mutex<FileContents>,
    handshakes: Semaphore,
    handshake_timeout: Duration,
}

impl std::fmt::Debug for TlsServer {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("TlsServer");
        debug.field("files", &self.files).finish_non_exhaustive()
    }
}

impl TlsServer {
    /// Reads the files that the settings name; `None` if they name none.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Option<Self>, TlsError> {
        let Some(files) = TlsFiles::named_by(settings)? else {
            return Ok(None);
        };
        let contents = files.read()?;
        let config = files.config(&contents)?;
        Ok(Some(Self {
            files,
            config: ArcSwap::from_pointee(config),
            contents: Mutex::new(contents),
            handshakes: Semaphore::new(settings.tls_handshakes_max),
            handshake_timeout: settings.tls_handshake_timeout,
        }))
    }

    /// Reads the files again and uses them for the connections that come from now on. Returns whether they had changed.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let contents = self.files.read()?;
        let mut current = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == contents {
            return Ok(false);
        }
        self.config.store(Arc::new(self.files.config(&contents)?));
        *current = contents;
        Ok(true)
    }

    /// Reloads the files when they change, until the handle is dropped.
    pub(crate) fn watch(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let tls = Arc::clone(self);
        let watch = async move {
            loop {
                tokio::time::sleep(RELOAD_EVERY).await;
                let tls = Arc::clone(&tls);
                // A file may be on a slow disk.
                let reloaded = tokio::task::spawn_blocking(move || tls.reload_logged());
                let _ = reloaded.await;
            }
        };
        AbortOnDropHandle::new(tokio::spawn(watch))
    }

    /// Reloads the files, and logs what came of it.
    pub(crate) fn reload_logged(&self) {
        match self.reload() {
            Ok(true) => tracing::info!("certificates reloaded"),
            Ok(false) => {}
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "certificates not reloaded, the earlier ones stay in use"
            ),
        }
    }

    /// Does the handshake of a connection, within the bounds of number and time.
    pub(super) async fn accept(&self, socket: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
        let handshake = async {
            let _permit = self.handshakes.acquire().await.map_err(io::Error::other)?;
            let acceptor = TlsAcceptor::from(self.config.load_full());
            Box::pin(acceptor.accept(socket)).await
        };
        let accepted = timeout(self.handshake_timeout, handshake).await;
        Ok(Box::new(accepted.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timed out")
        })??))
    }
}

impl TlsFiles {
    fn named_by(settings: &Settings) -> Result<Option<Self>, TlsError> {
        let named = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        let certificate = named(&settings.tls_certificate_file);
        let key = named(&settings.tls_key_file);
        let client_ca = named(&settings.tls_client_ca_file);
        let incomplete = |given, missing| Err(TlsError::Incomplete { given, missing });
        if client_ca.is_none() && settings.tls_client_certificate_required {
            return incomplete("tls_client_certificate_required", "tls_client_ca_file");
        }
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(Self {
                certificate,
                key,
                client_ca,
                client_certificate_required: settings.tls_client_certificate_required,
            })),
            (None, None) if client_ca.is_none() => Ok(None),
            (None, None) => incomplete("tls_client_ca_file", "tls_certificate_file"),
            (Some(_), None) => incomplete("tls_certificate_file", "tls_key_file"),
            (None, Some(_)) => incomplete("tls_key_file", "tls_certificate_file"),
        }
    }

    fn read(&self) -> Result<FileContents, TlsError> {
        let read = |setting, file: &Path| {
            fs::read(file).map_err(|source| TlsError::Read {
                setting,
                file: file.to_owned(),
                source,
            })
        };
        let client_ca = self.client_ca.as_deref();
        Ok(FileContents {
            certificate: read("tls_certificate_file", &self.certificate)?,
            key: read("tls_key_file", &self.key)?,
            client_ca: client_ca
                .map(|file| read("tls_client_ca_file", file))
                .transpose()?,
        })
    }

    fn config(&self, contents: &FileContents) -> Result<ServerConfig, TlsError> {
        let chain = certificates(
            "tls_certificate_file",
            &self.certificate,
            &contents.certificate,
        )?;
        let key =
            PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| TlsError::Content {
                setting: "tls_key_file",
                file: self.key.clone(),
                reason: error.to_string(),
                expected: "a private key as PEM",
            })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = match (&self.client_ca, &contents.client_ca) {
            (Some(file), Some(pem)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("tls_client_ca_file", file, pem)? {
                    roots.add(certificate)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if self.client_certificate_required {
                    verifier
                } else {
                    verifier.allow_unauthenticated()
                };
                builder.with_client_cert_verifier(verifier.build()?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

/// Reads the certificates in a file; at least one.
pub(super) fn read_certificates(
    setting: &'static str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = fs::read(file).map_err(|source| TlsError::Read {
        setting,
        file: file.to_owned(),
        source,
    })?;
    certificates(setting, file, &pem)
}

/// The certificates in a text; at least one.
fn certificates(
    setting: &'static str,
    file: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let invalid = |reason: String| TlsError::Content {
        setting,
        file: file.to_owned(),
        reason,
        expected: "certificates as PEM",
    };
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| invalid(error.to_string()))?;
    if certificates.is_empty() {
        return Err(invalid("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}
