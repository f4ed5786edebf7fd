//! The services and methods of gRPC that this server offers.
//!
//! **Owns:** [`SERVICES`], from which health, `/info`, the features of clients and the bounds of requests follow.
//! **Does not know:** how a method works.
//! **Invariants:** a method that is not in the table is not reachable; a test compares the table with the registered services.

use leftfold_proto::{event_store::client, kurrentdb::protocol::v2, leftfold, umadb};
use tonic_health::pb::health_server;

use super::{message_scanner::Field, message_shapes as shapes};

/// A service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// The contract it belongs to, as `/info` names it.
    pub(crate) contract: &'static str,
    pub(crate) methods: &'static [Method],
}

/// A method of a service.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) kind: CallKind,
    /// The fields of its requests that repeat.
    pub(crate) shape: &'static [Field],
    /// Who may call it, before what it is asked about is looked at.
    pub(crate) access: MethodAccess,
    /// Whether its responses go on coming, so that the call keeps what was asked for until it ends.
    pub(crate) stays_open: bool,
}

impl Method {
    /// The same, for everyone who can connect. These are all there are: what clients need before they know whom to name, and
    /// what probes ask.
    const fn anonymous(mut self) -> Self {
        self.access = MethodAccess::Anonymous;
        self
    }

    /// The same, with responses that go on coming.
    const fn open(mut self) -> Self {
        self.stays_open = true;
        self
    }

    /// The same, for operators.
    const fn operator(mut self) -> Self {
        self.access = MethodAccess::Operator;
        self
    }
}

/// Who may call a method at all. What it may then do is decided by the rights of the principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MethodAccess {
    /// Everyone who can connect.
    Anonymous,
    /// Users and holders of keys.
    Authenticated,
    /// Operators and administrators.
    Operator,
}

/// How requests of a method come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// In one message.
    Single,
    /// In several messages with one answer: all of them belong to one request.
    Collected,
    /// In messages that are answered one by one, on a call that stays open.
    Session,
    /// In one message, which is answered with why this server does not offer the method.
    Refused,
}

const fn method(name: &'static str, kind: CallKind, shape: &'static [Field]) -> Method {
    Method {
        name,
        kind,
        shape,
        access: MethodAccess::Authenticated,
        stays_open: matches!(kind, CallKind::Session),
    }
}

const fn single(name: &'static str) -> Method {
    method(name, CallKind::Single, &[])
}

const fn refused(name: &'static str) -> Method {
    method(name, CallKind::Refused, &[])
}

/// KurrentDB's first protocol.
pub(crate) const KURRENT: &str = "event_store.client";
/// KurrentDB's second protocol.
pub(crate) const KURRENT_V2: &str = "kurrentdb.protocol.v2";

/// The name of UmaDB's service before its contract had versions.
pub(crate) const UMADB_OLDER_NAME: &str = "umadb.UmaDBService";

const UMADB_METHODS: &[Method] = &[
    method("Read", CallKind::Single, shapes::UMADB_SELECTION).open(),
    method("Subscribe", CallKind::Single, shapes::UMADB_SELECTION).open(),
    method("Append", CallKind::Single, shapes::UMADB_APPEND),
    single("Head"),
    single("GetTrackingInfo"),
];

/// All of them.
pub(crate) static SERVICES: &[Service] = &[
    Service {
        name: client::streams::streams_server::SERVICE_NAME,
        contract: KURRENT,
        methods: &[
            method("Read", CallKind::Single, shapes::KURRENT_READ).open(),
            method("Append", CallKind::Collected, shapes::KURRENT_APPEND),
            method("BatchAppend", CallKind::Session, shapes::KURRENT_BATCH),
            single("Delete"),
            single("Tombstone"),
        ],
    },
    Service {
        name: v2::streams::streams_service_server::SERVICE_NAME,
        contract: KURRENT_V2,
        methods: &[
            method("AppendSession", CallKind::Collected, shapes::V2_SESSION),
            method("AppendRecords", CallKind::Single, shapes::V2_RECORDS),
        ],
    },
    Service {
        name: client::gossip::gossip_server::SERVICE_NAME,
        contract: KURRENT,
        methods: &[single("Read").anonymous()],
    },
    Service {
        name: client::monitoring::monitoring_server::SERVICE_NAME,
        contract: KURRENT,
        methods: &[single("Stats").operator().open()],
    },
    Service {
        name: client::operations::operations_server::SERVICE_NAME,
        contract: KURRENT,
        methods: &[
            single("StartScavenge").operator(),
            single("StopScavenge").operator(),
            refused("Shutdown").operator(),
            refused("MergeIndexes").operator(),
            refused("ResignNode").operator(),
            refused("SetNodePriority").operator(),
            single("RestartPersistentSubscriptions").operator(),
        ],
    },
    Service {
        name: client::users::users_server::SERVICE_NAME,
        contract: KURRENT,
        methods: &[
            method("Create", CallKind::Single, shapes::KURRENT_USER),
            method("Update", CallKind::Single, shapes::KURRENT_USER),
            single("Delete"),
            single("Disable"),
            single("Enable"),
            single("Details"),
            single("ChangePassword"),
            single("ResetPassword"),
        ],
    },
    Service {
        name: client::persistent_subscriptions::persistent_subscriptions_server::SERVICE_NAME,
        contract: KURRENT,
        methods: &[
            method("Create", CallKind::Single, shapes::KURRENT_CREATE_GROUP).operator(),
            method("Update", CallKind::Single, shapes::KURRENT_CREATE_GROUP).operator(),
            single("Delete").operator(),
            method("Read", CallKind::Session, shapes::KURRENT_CONSUMER),
            single("GetInfo"),
            single("ReplayParked").operator(),
            single("List"),
            single("RestartSubsystem").operator(),
        ],
    },
    Service {
        name: client::projections::projections_server::SERVICE_NAME,
        contract: KURRENT,
        methods: &[
            refused("Create"),
            refused("Update"),
            refused("Delete"),
            single("Statistics"),
            refused("Disable"),
            single("Enable").operator(),
            single("Reset").operator(),
            single("State"),
            single("Result"),
            single("RestartSubsystem").operator(),
        ],
    },
    Service {
        name: client::server_features::server_features_server::SERVICE_NAME,
        contract: KURRENT,
        methods: &[single("GetSupportedMethods").anonymous()],
    },
    Service {
        name: umadb::v1::dcb_server::SERVICE_NAME,
        contract: "umadb.v1",
        methods: UMADB_METHODS,
    },
    Service {
        name: UMADB_OLDER_NAME,
        contract: "umadb.v1",
        methods: UMADB_METHODS,
    },
    Service {
        name: leftfold::v1::store_server::SERVICE_NAME,
        contract: "leftfold.v1",
        methods: &[
            single("Describe"),
            method("Append", CallKind::Single, shapes::APPEND),
            method("AppendChunked", CallKind::Collected, &[]),
            method("Appends", CallKind::Session, shapes::APPENDS),
            method("Read", CallKind::Single, shapes::SELECTION).open(),
            method("Subscribe", CallKind::Single, shapes::SELECTION).open(),
            single("Head"),
            single("State"),
            single("Delete"),
            single("List").open(),
            single("Stats").operator(),
            single("Scavenge").operator().open(),
            single("LoadSnapshot"),
            single("SaveSnapshot"),
            single("RemoveSnapshot"),
            single("ClaimConsumer"),
            single("RenewClaim"),
            single("ReleaseClaim"),
            method("AdvanceConsumer", CallKind::Single, shapes::ADVANCE),
            single("DueTimers"),
            single("ListParked"),
            single("ResolveParked"),
            single("GetConsumer"),
            single("ListConsumers"),
            single("ResetConsumer"),
            single("RemoveConsumer"),
        ],
    },
    Service {
        name: leftfold::v1::access_server::SERVICE_NAME,
        contract: "leftfold.v1",
        methods: &[
            single("ListUsers"),
            method("CreateUser", CallKind::Single, shapes::CREATE_USER),
            method("ChangeUser", CallKind::Single, shapes::CHANGE_USER),
            single("ListKeys"),
            method("CreateKey", CallKind::Single, shapes::CREATE_KEY),
            single("RevokeKey"),
        ],
    },
    Service {
        name: health_server::SERVICE_NAME,
        contract: "grpc.health.v1",
        methods: &[
            single("Check").anonymous(),
            single("Watch").anonymous().open(),
        ],
    },
];

/// The service of this name.
pub(crate) fn service(name: &str) -> Option<&'static Service> {
    SERVICES.iter().find(|service| service.name == name)
}

/// The method at the path of a request: `/service/method`.
pub(crate) fn at(path: &str) -> Option<(&'static Service, &'static Method)> {
    let (name, method) = path.strip_prefix('/')?.split_once('/')?;
    let service = service(name)?;
    let method = service.methods.iter().find(|known| known.name == method)?;
    Some((service, method))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn the_table_has_every_method_of_the_contracts() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../leftfold-proto/proto");
        let mut declared = BTreeSet::new();
        let mut directories = vec![root];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    declared.extend(methods_of(&fs::read_to_string(path).unwrap()));
                }
            }
        }
        let ours = SERVICES
            .iter()
            .filter(|service| service.contract != "grpc.health.v1")
            // Another name for methods that are declared.
            .filter(|service| service.name != UMADB_OLDER_NAME);
        let table: BTreeSet<_> = ours
            .flat_map(|service| {
                let several =
                    |it: &Method| matches!(it.kind, CallKind::Collected | CallKind::Session);
                let methods = service.methods.iter();
                methods.map(move |it| (format!("{}/{}", service.name, it.name), several(it)))
            })
            .collect();
        assert_eq!(declared, table);
    }

    /// The methods of a contract, and whether their requests come in several messages.
    fn methods_of(contract: &str) -> Vec<(String, bool)> {
        let (mut package, mut service) = ("", "");
        let mut methods = Vec::new();
        for line in contract.lines().map(str::trim) {
            let words: Vec<_> = line.split([' ', '(', ';']).collect();
            match words.as_slice() {
                ["package", name, ..] => package = name,
                ["service", name, ..] => service = name,
                ["rpc", name, first, ..] => {
                    methods.push((format!("{package}.{service}/{name}"), *first == "stream"));
                }
                _ => {}
            }
        }
        methods
    }

    #[test]
    fn a_path_leads_to_its_method_or_to_none() {
        let (service, method) = at("/leftfold.v1.Store/Append").unwrap();
        assert_eq!((service.contract, method.name), ("leftfold.v1", "Append"));
        for none in [
            "",
            "/",
            "/leftfold.v1.Store",
            "/leftfold.v1.Store/Nothing",
            "/a/b",
        ] {
            assert!(at(none).is_none(), "{none}");
        }
    }
}
