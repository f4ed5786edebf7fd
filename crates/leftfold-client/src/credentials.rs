//! Who a client is.
//!
//! **Owns:** [`Credentials`], and putting them on each call. **Does not know:** connections.
//! **Invariants:** no debug output and no error holds a password, a key or a token.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

/// Who a client is, for servers that ask.
///
/// ```
/// use leftfold_client::Credentials;
/// let ann = Credentials::password("ann", "correct horse");
/// assert_eq!(format!("{ann:?}"), "Password { login: \"ann\" }");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Password { login: String, password: String },
    ApiKey(String),
    Token(String),
}

impl Credentials {
    /// A user with a password.
    #[must_use]
    pub fn password(login: impl Into<String>, password: impl Into<String>) -> Self {
        Self(Kind::Password {
            login: login.into(),
            password: password.into(),
        })
    }

    /// An API key.
    #[must_use]
    pub fn api_key(key: impl Into<String>) -> Self {
        Self(Kind::ApiKey(key.into()))
    }

    /// A JSON Web Token of the issuer that the server trusts. Calls fail and subscriptions end when it does, so connect again
    /// with a new one before that.
    ///
    /// ```
    /// use leftfold_client::Credentials;
    /// let token = Credentials::token("eyJhbGciOiJFUzI1NiJ9.e30.c2ln");
    /// assert_eq!(format!("{token:?}"), "Token");
    /// ```
    #[must_use]
    pub fn token(token: impl Into<String>) -> Self {
        Self(Kind::Token(token.into()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Password { login, .. } => {
                f.debug_struct("Password").field("login", login).finish()
            }
            Kind::ApiKey(_) => f.write_str("ApiKey"),
            Kind::Token(_) => f.write_str("Token"),
        }
    }
}

/// Puts credentials on each call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Authorize(Option<MetadataValue<Ascii>>);

impl Authorize {
    /// `None`: the credentials hold a character that no header can.
    pub(crate) fn by(credentials: Option<&Credentials>) -> Option<Self> {
        let text = match credentials.map(|credentials| &credentials.0) {
            None => return Some(Self(None)),
            Some(Kind::Password { login, password }) => {
                format!("Basic {}", STANDARD.encode(format!("{login}:{password}")))
            }
            Some(Kind::ApiKey(secret) | Kind::Token(secret)) => format!("Bearer {secret}"),
        };
        let mut value: MetadataValue<Ascii> = text.parse().ok()?;
        value.set_sensitive(true);
        Some(Self(Some(value)))
    }
}

impl Interceptor for Authorize {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}
