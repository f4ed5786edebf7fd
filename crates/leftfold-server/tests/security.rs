//! What keeps others out, over real sockets: TLS, users, keys, the audit.
//!
//! **Owns:** the wiring of these tests. **Does not know:** the rules of any wire.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests stop at the first surprise; not every binary uses every helper"
)]

#[path = "security/certificates.rs"]
mod certificates;
#[path = "security/issuer.rs"]
mod issuer;
#[path = "security/lost_end.rs"]
mod lost_end;
#[path = "security/rights.rs"]
mod rights;
#[path = "security/session.rs"]
mod session;
#[path = "security/starting.rs"]
mod starting;
mod test_server;
#[path = "security/tickets.rs"]
mod tickets;
#[path = "security/tls.rs"]
mod tls;
#[path = "security/tokens.rs"]
mod tokens;
#[path = "security/users.rs"]
mod users;
