//! The other end of a connection.
//!
//! **Owns:** [`Peer`]: its address, and what TLS proved about it. **Does not know:** users.
//! **Invariants:** a name is here only if the certificate that holds it was verified.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The other end of a connection; an extension of each of its requests.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// The common name of the subject of its verified certificate.
    pub(crate) certificate_name: Option<Arc<str>>,
}

impl Peer {
    pub(super) fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            certificate_name: None,
        }
    }

    /// What TLS proved about the other end.
    pub(super) fn proved_by(address: SocketAddr, stream: &TlsStream<TcpStream>) -> Self {
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        Self {
            address,
            certificate_name: certificate.and_then(|certificate| common_name(certificate)),
        }
    }
}

/// The only common name of a certificate's subject; of several none counts.
fn common_name(der: &[u8]) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    names.next().is_none().then(|| name.into())
}
