//! Which server acts for a group, as the claim of its consumer names it.
//!
//! **Owns:** [`ServerIdentity`], the text that names a server in a claim, and [`Owner`]. **Does not know:** when claims end.
//! **Invariants:** the address comes first, behind it what is different after each start, so that operators see where a group
//! runs and two servers of one address are told apart.

use uuid::Uuid;

/// Who this server is to other servers of one store.
#[derive(Debug)]
pub(super) struct ServerIdentity {
    /// Where clients find this server: host and port.
    address: String,
    /// Different after each start.
    instance: Uuid,
}

/// Who holds the claim of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    /// This server, in a run that has not ended yet.
    ThisServer,
    /// A server with another address.
    Other(&'a str),
    /// A server with this server's address: this one before its last start, or another one that clients cannot tell from it.
    SameAddress(&'a str),
    /// What is no server: a program that claimed the consumer by itself.
    Unknown,
}

impl ServerIdentity {
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            instance: Uuid::new_v4(),
        }
    }

    /// Returns the holder of a claim for one run of a group.
    pub(super) fn holder(&self, run: u64) -> String {
        format!("{} {} {run}", self.address, self.instance.simple())
    }

    /// Returns whose holder this is.
    pub(super) fn owner<'a>(&self, holder: &'a str) -> Owner<'a> {
        let mut words = holder.split(' ');
        let address = words.next().unwrap_or_default();
        let instance = words.next().and_then(|word| word.parse::<Uuid>().ok());
        if !address.contains(':') {
            Owner::Unknown
        } else if address != self.address {
            Owner::Other(address)
        } else if instance == Some(self.instance) {
            Owner::ThisServer
        } else {
            Owner::SameAddress(address)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_tells_this_server_from_others_of_the_same_and_of_another_address() {
        let server = |address: &str| ServerIdentity::new(address.to_owned());
        let (here, again, there) = (server("a:1"), server("a:1"), server("b:1"));
        assert_eq!(here.owner(&here.holder(7)), Owner::ThisServer);
        assert_eq!(here.owner(&again.holder(7)), Owner::SameAddress("a:1"));
        assert_eq!(here.owner(&there.holder(7)), Owner::Other("b:1"));
        assert_eq!(here.owner("worker-3"), Owner::Unknown);
        assert_ne!(here.holder(7), here.holder(8));
    }
}
