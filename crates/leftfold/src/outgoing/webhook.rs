//! Messages by HTTP.
//!
//! **Owns:** [`Webhook`]: requests as Standard Webhooks signs them, and which answers count. **Does not know:** events.
//! **Invariants:** only an answer of 2xx counts as delivered; a redirection is not followed, for it would lead a signed message
//! elsewhere; of an answer no more than its beginning is read; a request ends within its time.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use sha2::Sha256;

use super::{delivery::Transport, message::CloudEvent};
use crate::{HandlerError, clock::system_time};

/// Bytes of an answer that are read for the reason of a failure, at most.
const REASON_BYTES: usize = 512;

/// Delivers messages to an address by HTTP POST, as the JSON form of CloudEvents 1.0.
///
/// With a secret, requests are signed as [Standard Webhooks](https://www.standardwebhooks.com) has it: `webhook-id` is derived
/// from source, type and id of the message, `webhook-timestamp` is the time of the attempt in seconds, and
/// `webhook-signature` is `v1,` and the HMAC-SHA256 of both and the body, joined by dots, in Base64.
///
/// Only an answer of 2xx counts. A redirection, any other answer, and none within 10 seconds are failed attempts.
#[derive(Clone)]
pub struct Webhook {
    client: Client,
    url: Url,
    secret: Option<Arc<[u8]>>,
}

/// An address is none of a webhook.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidWebhook {
    /// It is no URL of HTTP.
    #[error("address of a webhook is not valid: {address:?}; expected http://... or https://...")]
    Address {
        /// The address.
        address: String,
    },
    /// The HTTP client cannot be made.
    #[error("HTTP client of a webhook cannot be made")]
    Client(#[source] reqwest::Error),
}

/// An answer that does not count as delivered.
#[derive(Debug, thiserror::Error)]
#[error("webhook answered {status}: {beginning:?}; expected 2xx")]
struct Refused {
    status: StatusCode,
    beginning: String,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("host", &self.url.host_str())
            .field("signed", &self.secret.is_some())
            .finish_non_exhaustive()
    }
}

impl Webhook {
    /// A webhook at this address.
    ///
    /// # Errors
    /// [`InvalidWebhook`].
    pub fn to(address: &str) -> Result<Self, InvalidWebhook> {
        let invalid = || InvalidWebhook::Address {
            address: address.chars().take(200).collect(),
        };
        let url = Url::parse(address).map_err(|_| invalid())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(invalid());
        }
        Ok(Self {
            client: client(Duration::from_secs(10))?,
            url,
            secret: None,
        })
    }

    /// Signs requests with this secret. It is shared with the receiver, and should be 24 to 64 random bytes.
    #[must_use]
    pub fn signed_by(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.secret = Some(secret.as_ref().into());
        self
    }

    /// Gives up a request that takes longer than this; 10 seconds unless said.
    ///
    /// # Errors
    /// [`InvalidWebhook::Client`].
    pub fn timeout(mut self, timeout: Duration) -> Result<Self, InvalidWebhook> {
        self.client = client(timeout)?;
        Ok(self)
    }
}

fn client(timeout: Duration) -> Result<Client, InvalidWebhook> {
    let client = Client::builder()
        .user_agent(concat!("leftfold/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .timeout(timeout);
    client.build().map_err(InvalidWebhook::Client)
}

/// Signs a message: `v1,` and the signature in Base64.
fn signature(secret: &[u8], id: &str, seconds: u64, body: &[u8]) -> Result<String, HandlerError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Ok(format!(
        "v1,{}",
        STANDARD.encode(mac.finalize().into_bytes())
    ))
}

/// The beginning of an answer, for people.
async fn beginning(mut response: Response) -> String {
    let mut read = Vec::new();
    while read.len() < REASON_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => read.extend(chunk.iter().take(REASON_BYTES - read.len())),
            Ok(None) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

impl Transport for Webhook {
    async fn deliver(&self, message: &CloudEvent) -> Result<(), HandlerError> {
        let body = serde_json::to_vec(message)?;
        let id = message.delivery_id("");
        let seconds = system_time().as_micros() / 1_000_000;
        let mut request = self
            .client
            .post(self.url.clone())
            .header(
                header::CONTENT_TYPE,
                "application/cloudevents+json; charset=utf-8",
            )
            .header("webhook-id", &id)
            .header("webhook-timestamp", seconds);
        if let Some(secret) = &self.secret {
            let signature = signature(secret, &id, seconds, &body)?;
            request = request.header("webhook-signature", signature);
        }
        // An address may hold a password, and reasons are kept.
        let response = request.body(body).send().await;
        let response = response.map_err(reqwest::Error::without_url)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let beginning = beginning(response).await;
        Err(Refused { status, beginning }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_standard_webhooks_gives_as_its_example() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(
            signed.unwrap(),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn only_addresses_of_http_are_taken() {
        for address in ["", "ftp://a", "file:///etc/passwd", "a.example", "http://"] {
            assert!(Webhook::to(address).is_err(), "{address}");
        }
        let webhook = Webhook::to("https://user:secret@a.example/hook?token=1").unwrap();
        let shown = format!("{:?}", webhook.signed_by("key"));
        assert!(
            !shown.contains("secret") && !shown.contains("token"),
            "{shown}"
        );
    }
}
