//! Messages by NATS JetStream.
//!
//! **Owns:** [`JetStream`]: the subject of each message, its id for the broker, and what is checked of the stream before.
//! **Does not know:** events, how a connection is made or made again.
//! **Invariants:** a message counts as delivered only when the stream has acknowledged it; its `Nats-Msg-Id` is that of its
//! repetitions and of no other message, so the stream stores it once; no text of an event becomes a separator or a wildcard of
//! a subject.

use std::{fmt, sync::Arc};

use async_nats::jetstream::{
    context::{Context, GetStreamError, GetStreamErrorKind, PublishError},
    message::PublishMessage,
    stream::Config,
};

use super::{delivery::Transport, message::CloudEvent};
use crate::HandlerError;

/// The error code by which a server of JetStream says that a stream does not exist.
const STREAM_NOT_FOUND: u64 = 10_059;

/// Delivers messages to a stream of [NATS JetStream](https://docs.nats.io/nats-concepts/jetstream), as the JSON form of
/// CloudEvents 1.0.
///
/// The subject of a message is the prefix, a dot, and the name of the event's stream, in which `.`, `*`, `>`, `%`, spaces and
/// control characters are percent-encoded. `bank` and `account-7f3` make `bank.account-7f3`. Messages of one subject are
/// stored in order.
///
/// `Nats-Msg-Id` is derived from the subject, and from source, type and id of the message. The stream stores a repetition once
/// if it comes within the stream's `duplicate_window`, which is two minutes unless it was created with another. Later ones
/// are stored again, with the same id.
///
/// A message that is not acknowledged within the context's timeout (5 seconds by default) is a failed attempt.
///
/// # Example
/// ```no_run
/// use leftfold::{JetStream, async_nats};
///
/// # async fn open() -> Result<JetStream, Box<dyn std::error::Error>> {
/// let client = async_nats::connect("nats://127.0.0.1:4222").await?;
/// let broker = JetStream::open(async_nats::jetstream::new(client), "BANK", "bank").await?;
/// # Ok(broker)
/// # }
/// ```
#[derive(Clone)]
pub struct JetStream {
    context: Context,
    stream: Arc<str>,
    prefix: Arc<str>,
}

/// A stream of JetStream that messages cannot be delivered to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidJetStream {
    /// The prefix makes no subject.
    #[error(
        "subject prefix not valid: {prefix:?}; expected tokens joined by dots, without spaces, `*` and `>`"
    )]
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// The stream does not exist.
    #[error("JetStream stream missing: {stream:?}; expected one that exists; create it first")]
    StreamMissing {
        /// The stream's name.
        stream: String,
    },
    /// The stream does not store what is published to the subjects of messages.
    #[error(
        "JetStream stream {stream:?} does not capture {prefix}.*: it captures {subjects:?}; add {prefix}.* to its subjects"
    )]
    NotCaptured {
        /// The stream's name.
        stream: String,
        /// The prefix of subjects.
        prefix: String,
        /// The subjects of the stream.
        subjects: Vec<String>,
    },
    /// The stream acknowledges nothing, so that no message could count as delivered.
    #[error("JetStream stream {stream:?} acknowledges nothing; expected one with no_ack = false")]
    NotAcknowledging {
        /// The stream's name.
        stream: String,
    },
    /// The stream cannot be looked up now.
    #[error("JetStream stream {stream:?} cannot be looked up")]
    Unavailable {
        /// The stream's name.
        stream: String,
        /// What the client says.
        source: GetStreamError,
    },
}

/// A message that the stream did not acknowledge.
#[derive(Debug, thiserror::Error)]
#[error("message not acknowledged by JetStream stream {stream:?} on subject {subject:?}")]
struct NotAcknowledged {
    stream: Arc<str>,
    subject: String,
    source: PublishError,
}

impl fmt::Debug for JetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStream")
            .field("stream", &self.stream)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl JetStream {
    /// Looks up a stream, and checks that it stores and acknowledges messages below `prefix`.
    ///
    /// The connection is the context's: TLS, credentials and the pauses between attempts to connect again are set there.
    ///
    /// # Errors
    /// [`InvalidJetStream`]. Nothing is created or changed.
    pub async fn open(
        context: Context,
        stream: &str,
        prefix: &str,
    ) -> Result<Self, InvalidJetStream> {
        if !is_prefix(prefix) {
            let prefix = prefix.chars().take(200).collect();
            return Err(InvalidJetStream::Prefix { prefix });
        }
        let found = context.get_stream(stream).await;
        let found = found.map_err(|source| lookup_error(stream, source))?;
        check(&found.cached_info().config, stream, prefix)?;
        Ok(Self {
            context,
            stream: stream.into(),
            prefix: prefix.into(),
        })
    }

    async fn publish(&self, subject: String, message: PublishMessage) -> Result<(), PublishError> {
        let sent = self.context.send_publish(subject, message).await?;
        sent.await?;
        Ok(())
    }
}

fn lookup_error(stream: &str, source: GetStreamError) -> InvalidJetStream {
    let stream = stream.to_owned();
    match source.kind() {
        GetStreamErrorKind::JetStream(error) if error.error_code().0 == STREAM_NOT_FOUND => {
            InvalidJetStream::StreamMissing { stream }
        }
        _ => InvalidJetStream::Unavailable { stream, source },
    }
}

fn check(config: &Config, stream: &str, prefix: &str) -> Result<(), InvalidJetStream> {
    let stream = stream.to_owned();
    if !config
        .subjects
        .iter()
        .any(|filter| captures(filter, prefix))
    {
        return Err(InvalidJetStream::NotCaptured {
            stream,
            prefix: prefix.to_owned(),
            subjects: config.subjects.iter().map(ToString::to_string).collect(),
        });
    }
    match config.no_ack {
        true => Err(InvalidJetStream::NotAcknowledging { stream }),
        false => Ok(()),
    }
}

/// Whether a text can stand in front of the last token of a subject.
fn is_prefix(prefix: &str) -> bool {
    let plain = |c: char| !matches!(c, '*' | '>') && !c.is_whitespace() && !c.is_control();
    let token = |token: &str| !token.is_empty() && token.chars().all(plain);
    prefix.len() <= 1_024 && prefix.split('.').all(token)
}

/// Whether a stream with this subject stores every message whose subject is the prefix and one more token.
fn captures(filter: &str, prefix: &str) -> bool {
    let mut filter = filter.split('.');
    for token in prefix.split('.').chain(["*"]) {
        match filter.next() {
            Some(">") => return true,
            Some("*") => {}
            Some(same) if same == token => {}
            _ => return false,
        }
    }
    filter.next().is_none()
}

/// Encodes a name as one token of a subject.
fn token(name: &str) -> String {
    use fmt::Write as _;
    let mut token = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '.' | '*' | '>' | '%' => {}
            c if c.is_whitespace() || c.is_control() => {}
            c => {
                token.push(c);
                continue;
            }
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a text cannot fail.
            let _ = write!(token, "%{byte:02X}");
        }
    }
    token
}

impl Transport for JetStream {
    async fn deliver(&self, message: &CloudEvent) -> Result<(), HandlerError> {
        let subject = format!("{}.{}", self.prefix, token(&message.subject));
        let publish = PublishMessage::build()
            .message_id(message.delivery_id(&subject))
            .expected_stream(&self.stream)
            .header(
                "Content-Type",
                "application/cloudevents+json; charset=utf-8",
            )
            .payload(serde_json::to_vec(message)?.into());
        let published = self.publish(subject.clone(), publish).await;
        published.map_err(|source| {
            let stream = Arc::clone(&self.stream);
            NotAcknowledged {
                stream,
                subject,
                source,
            }
            .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_one_token_and_no_wildcard() {
        for (name, expected) in [
            ("account-7f3", "account-7f3"),
            ("a.b", "a%2Eb"),
            ("a*", "a%2A"),
            (">", "%3E"),
            ("100% of\tit", "100%25%20of%09it"),
            ("caf\u{e9}", "caf\u{e9}"),
            ("a\u{a0}b", "a%C2%A0b"),
        ] {
            assert_eq!(token(name), expected);
        }
    }

    #[test]
    fn a_filter_captures_a_prefix_if_it_captures_every_token_behind_it() {
        for filter in [">", "bank.>", "bank.*", "*.*", "*.>"] {
            assert!(captures(filter, "bank"), "{filter}");
        }
        for filter in [
            "bank",
            "*",
            "bank.account-1",
            "bank.*.*",
            "shop.>",
            "bank.*.>",
            "",
        ] {
            assert!(!captures(filter, "bank"), "{filter}");
        }
        assert!(captures("eu.bank.>", "eu.bank") && !captures("eu.*", "eu.bank"));
    }

    #[test]
    fn a_prefix_has_tokens_without_wildcards() {
        assert!(is_prefix("bank") && is_prefix("eu.bank-2"));
        for prefix in [
            "", ".", "bank.", ".bank", "a..b", "a b", "bank.*", "bank.>", "a\nb",
        ] {
            assert!(!is_prefix(prefix), "{prefix:?}");
        }
    }
}
