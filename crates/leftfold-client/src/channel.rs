//! Connecting to a server: plain or encrypted, as a user or as nobody.
//!
//! **Owns:** [`connect`], [`Connected`]. **Does not know:** which calls are made.
//! **Invariants:** the certificate and the name of an encrypted server are always verified; credentials go to another machine
//! unencrypted only if the address says so.

use std::{fs, sync::Arc};

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::{ClientOptions, ConnectError, address::Address, credentials::Authorize};

/// Bytes that may be under way on one connection. Reads are bounded one by one, so that none that is not consumed holds
/// up the others.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// A first connection, and how to make more.
pub(crate) struct Connected {
    /// The address for messages.
    pub(crate) address: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) authorize: Authorize,
    pub(crate) channel: Channel,
}

/// Connects to a server.
pub(crate) async fn connect(
    parsed: &Address,
    options: &ClientOptions,
) -> Result<Connected, ConnectError> {
    let address = parsed.to_string();
    let refused = |reason| ConnectError::Address {
        given: address.clone(),
        reason,
    };
    if options.credentials.is_some() && !parsed.may_take_credentials() {
        return Err(refused(
            "credentials would go to another machine unencrypted; add ?tls=true, or ?tls=false if the network keeps \
             strangers out",
        ));
    }
    let endpoint = endpoint(parsed, options)?;
    let authorize = Authorize::by(options.credentials.as_ref());
    let authorize =
        authorize.ok_or_else(|| refused("its credentials hold a character that no header can"))?;
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|source| ConnectError::Unreachable {
        address: address.clone(),
        cause: Arc::new(source),
    })?;
    Ok(Connected {
        address,
        endpoint,
        authorize,
        channel,
    })
}

fn endpoint(address: &Address, options: &ClientOptions) -> Result<Endpoint, ConnectError> {
    let refused = |_| ConnectError::Address {
        given: address.to_string(),
        reason: "it is not of the form leftfold://host:port",
    };
    let agent = concat!("leftfold-client/", env!("CARGO_PKG_VERSION"));
    let endpoint = Endpoint::from_shared(address.http())
        .map_err(refused)?
        .user_agent(agent)
        .map_err(refused)?
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let Some(tls) = address.tls() else {
        return Ok(endpoint);
    };
    let mut config = ClientTlsConfig::new();
    config = match &tls.ca_file {
        Some(file) => {
            let pem = fs::read(file).map_err(|source| ConnectError::CaFile {
                file: file.clone(),
                source: Arc::new(source),
            })?;
            config.ca_certificate(Certificate::from_pem(pem))
        }
        None => config.with_native_roots(),
    };
    endpoint.tls_config(config).map_err(refused)
}
