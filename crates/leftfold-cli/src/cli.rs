//! The command line: subcommands, flags and help texts.
//!
//! **Owns:** every flag and its help. **Does not know:** what subcommands do with them.
//! **Invariants:** every subcommand's help has an example; values are validated where they are parsed.

mod access;
mod server;

use std::{path::PathBuf, str::FromStr};

pub(crate) use self::{
    access::{Audit, Certs, Keys, KeysCommand, Users, UsersCommand},
    server::{Doctor, Serve},
};
use crate::group_args::GroupsCommand;
use clap::{Args, Parser, Subcommand, ValueEnum};
use leftfold_error_codes::ErrorCode;
use leftfold_model::{
    Category, EventId, EventType, ExpectedRevision, Query, QueryItem, Revision, StreamName, Tag,
};
use leftfold_store::consumers::ConsumerName;

const EXIT_CODES: &str = "Exit codes:\n  0  done\n  1  failed\n  2  the command line is not valid\n  \
     3  conflict: the append lost against what is stored\n  4  stored data is damaged\n  \
     5  outcome unknown: the append may or may not be stored";

/// An event store: append, read, follow, import, export, verify.
#[derive(Debug, Parser)]
#[command(name = "leftfold", version, about, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a bank account on the embedded store and shows what is stored.
    #[command(after_help = "Example:\n  leftfold demo --data demo-data")]
    Demo(Demo),
    /// Appends one event.
    #[command(
        after_help = "Examples:\n  leftfold append --data data --stream account-1 --type DepositMade '{\"amount\":100}'\n  \
        echo '{\"amount\":30}' | leftfold append --data data --stream account-1 --type WithdrawalMade --expect 0 -"
    )]
    Append(Append),
    /// Reads events.
    #[command(
        after_help = "Examples:\n  leftfold read --data data --stream account-1\n  \
        leftfold read --data data --category account --type DepositMade --backwards --limit 5 --json"
    )]
    Read(Read),
    /// Follows the log: prints stored events, then events as they are appended.
    #[command(
        after_help = "Examples:\n  leftfold tail --url leftfold://localhost:2113\n  \
        leftfold tail --data data --after 100 --json"
    )]
    Tail(Tail),
    /// Lists streams with their event counts and last times.
    #[command(after_help = "Example:\n  leftfold streams --data data --prefix account-")]
    Streams(Streams),
    /// Shows counts and sizes.
    #[command(after_help = "Example:\n  leftfold stats --data data --json")]
    Stats(Stats),
    /// Imports an exact export, or events from JSON Lines; a repeated import stores nothing twice.
    #[command(
        after_help = "Each line is an object: stream, type, data; optionally id, metadata, tags, time.\n\
        An exact export goes into an empty store, or over an earlier copy.\n\
        Files compressed with gzip or zstd are recognized by their first bytes.\n\n\
        Example:\n  leftfold import events.jsonl --data data"
    )]
    Import(Import),
    /// Exports a store as JSON Lines, oldest event first: an exact copy, or its events alone.
    #[command(
        after_help = "An exact copy has positions, revisions, erased places and checksums; import makes the same store of it.\n\n\
        Examples:\n  leftfold export --data data | gzip > store.jsonl.gz\n  \
        leftfold export --plain --data data | jq -r .type"
    )]
    Export(Export),
    /// Prints or sets the metadata of a stream: its retention, and keys of its users.
    #[command(
        after_help = "Examples:\n  leftfold metadata --data data --stream account-1\n  \
        leftfold metadata --data data --stream account-1 '{\"$maxCount\":100}'"
    )]
    Metadata(Metadata),
    /// Shows consumers with their checkpoints, claims and parked events, and decides about parked events.
    #[command(
        after_help = "The consumer's own process acts on the request: at once, or when it runs again.\n\n\
        Examples:\n  leftfold consumers --data data list\n  leftfold consumers --data data parked mailer\n  \
        leftfold consumers --data data skip mailer 17"
    )]
    Consumers(Consumers),
    /// Shows, creates and changes groups of competing consumers, and settles what they parked.
    #[command(
        after_help = "The server that runs the group applies a change within seconds, or when a consumer connects \
        again.\n\n\
        Examples:\n  leftfold groups --url leftfold://localhost:2113 list\n  leftfold groups --data data create orders mailer \
        --from start --max-retries 5\n  leftfold groups --data data parked '$all' audit"
    )]
    Groups(Groups),
    /// Deletes a stream. The next append recreates it, unless the deletion is permanent.
    #[command(after_help = "Example:\n  leftfold delete --data data --stream account-1")]
    Delete(Delete),
    /// Reclaims the space of truncated and deleted events. Positions and revisions stay.
    #[command(
        after_help = "An interrupted scavenge keeps what it has done; the next run does the rest.\n\n\
        Example:\n  leftfold scavenge --data data --rate 20000000"
    )]
    Scavenge(Scavenge),
    /// Saves every sound event of a damaged store, and names the positions that are missing.
    #[command(
        after_help = "The file has a line for each event, as read --json prints it; import takes it. The store is not changed.\n\
        Ends with exit code 4 if positions are missing.\n\n\
        Example:\n  leftfold salvage --data data events.jsonl"
    )]
    Salvage(Salvage),
    /// Reads every byte and checks the index against the log. Works on --data only.
    #[command(after_help = "Example:\n  leftfold verify --data data")]
    Verify(Verify),
    /// Migrates the schema of a PostgreSQL store to the version that this program needs.
    #[command(
        after_help = "Commands that write migrate the schema first, unless the address says leftfold_migrate=false.\n\n\
        Examples:\n  leftfold migrate --data postgres://owner@localhost/shop\n  \
        leftfold migrate --data postgres://owner@localhost/shop --show > schema.sql"
    )]
    Migrate(Migrate),
    /// Measures this machine and the store on it.
    #[command(
        after_help = "Examples:\n  leftfold bench append --writers 64 --seconds 5\n  \
        leftfold bench scan --events 1000000\n  leftfold bench stream-read --readers 8"
    )]
    Bench(Bench),
    /// Serves a store to clients over the network, on one port.
    #[command(
        after_help = "Precedence of settings: flag, environment, file (docs/settings.md).\n\n\
        Examples:\n  leftfold serve --data data\n  leftfold serve --memory --listen 127.0.0.1:0"
    )]
    Serve(Serve),
    /// Checks an installation: machine, files, certificates and settings. Prints what to do.
    #[command(
        after_help = "Give it what `leftfold serve` gets. Ends with exit code 1 if something must be done.\n\n\
        Examples:\n  leftfold doctor --data data\n  leftfold doctor --data data --config leftfold.toml --json"
    )]
    Doctor(Doctor),
    /// Makes an authority and certificates for development.
    #[command(
        after_help = "Files that are there are not replaced; the authority is used again.\n\n\
        Examples:\n  leftfold certs certs\n  leftfold certs certs --host events.internal --host 10.0.0.7\n  \
        leftfold certs certs --user ann"
    )]
    Certs(Certs),
    /// Lists and changes the users of a server, or of a store that no server has open.
    #[command(
        after_help = "Examples:\n  leftfold users create ann --group '$ops' --password-file ann.txt --data data\n  \
        leftfold users list --data data"
    )]
    Users(Users),
    /// Lists, makes and revokes the API keys of a server, or of a store that no server has open.
    #[command(
        after_help = "A grant is read, append or admin, alone or within a scope.\n\n\
        Examples:\n  leftfold keys create shop --grant append:category=order --grant read --data data\n  \
        leftfold keys revoke 8f3a... --data data"
    )]
    Keys(Keys),
    /// Prints the audit, and checks that every entry is as it was written.
    #[command(after_help = "Example:\n  leftfold audit --verify --data data")]
    Audit(Audit),
    /// Explains an error code: what happened, the causes, what to do. Without a code, lists all.
    #[command(after_help = "Example:\n  leftfold explain LF0002")]
    Explain {
        /// The code that an error message ends with.
        code: Option<ErrorCode>,
    },
    /// Prints completions for a shell.
    #[command(
        after_help = "Example:\n  leftfold completions bash > /etc/bash_completion.d/leftfold"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// The store. A flag takes precedence over the environment, which clap cannot tell apart; see `open`.
#[derive(Debug, Args)]
pub(crate) struct Data {
    /// Directory of the store, or a database as `postgres://...` or `mongodb://...`. Commands that write
    /// create it if it is missing. [env: LEFTFOLD_DATA]
    #[arg(long, value_name = "STORE", global = true, conflicts_with = "url")]
    pub(crate) data: Option<PathBuf>,
    /// Server of the store, as `leftfold://host:port`, with `?tls=true&tlsCaFile=FILE` if it is encrypted. [env: LEFTFOLD_URL]
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Keep the events in this directory, or `postgres://...` or `mongodb://...` database. Default: memory, dropped at the end.
    #[arg(long, value_name = "STORE", conflicts_with = "url")]
    pub(crate) data: Option<PathBuf>,
    /// Keep the events on this server, `leftfold://host:port`.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Append {
    #[command(flatten)]
    pub(crate) data: Data,
    /// The stream to append to.
    #[arg(long)]
    pub(crate) stream: StreamName,
    /// The type of the event.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: EventType,
    /// Expected state of the stream: any, none, exists, or the revision of its last event.
    #[arg(long, default_value = "any", value_name = "any|none|exists|N")]
    pub(crate) expect: Expect,
    /// A tag of the event; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<Tag>,
    /// Id of the event, a UUID. A repeated append with this id stores nothing.
    #[arg(long, value_name = "UUID")]
    pub(crate) id: Option<EventId>,
    /// The metadata of the event, JSON.
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// The encoding of the data.
    #[arg(long, default_value = "json", value_enum)]
    pub(crate) content_type: Encoding,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The data of the event; `-` reads standard input. Without it the event has no data (JSON: `{}`).
    #[arg(value_name = "DATA")]
    pub(crate) content: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Encoding {
    Json,
    Binary,
    Msgpack,
    Cbor,
}

/// An expected revision of the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expect(pub(crate) ExpectedRevision);

impl FromStr for Expect {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "any" => ExpectedRevision::Any,
            "none" => ExpectedRevision::NoStream,
            "exists" => ExpectedRevision::StreamExists,
            number => match number.parse() {
                Ok(revision) => ExpectedRevision::Exact(Revision::new(revision)),
                Err(_) => {
                    return Err("expected any, none, exists, or the number of a revision".into());
                }
            },
        }))
    }
}

/// The events to select.
#[derive(Debug, Args, Clone, Default)]
pub(crate) struct Filter {
    /// Only events of this stream.
    #[arg(long, conflicts_with = "category")]
    pub(crate) stream: Option<StreamName>,
    /// Only events of streams of this category: the part of a name before the first `-`.
    #[arg(long)]
    pub(crate) category: Option<Category>,
    /// Only events of this type; several: of any of them.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) types: Vec<EventType>,
    /// Only events with this tag; several: with all of them.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<Tag>,
}

impl Filter {
    pub(crate) fn query(&self) -> Result<Query, leftfold_model::ModelError> {
        if self.types.is_empty() && self.tags.is_empty() {
            return Ok(Query::All);
        }
        Query::items([QueryItem::new(
            self.types.iter().cloned(),
            self.tags.iter().cloned(),
        )?])
    }
}

#[derive(Debug, Args)]
pub(crate) struct Read {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Start here (inclusive): with --stream a revision, else a position.
    #[arg(long, value_name = "N")]
    pub(crate) from: Option<u64>,
    /// Newest first.
    #[arg(long)]
    pub(crate) backwards: bool,
    /// Maximum number of events.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Print JSON Lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Start after this position (exclusive). Default: the end of the log.
    #[arg(long, value_name = "POSITION")]
    pub(crate) after: Option<u64>,
    /// Exit when every stored event has been printed.
    #[arg(long)]
    pub(crate) until_caught_up: bool,
    /// Print JSON Lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Streams {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Only streams whose names begin with this prefix.
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// Maximum number of streams.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Print JSON Lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The file; `-` reads standard input.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Lines appended together.
    #[arg(long, default_value = "1000", value_name = "LINES", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) batch: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Salvage {
    /// Directory of the store. [env: LEFTFOLD_DATA]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) data: Option<PathBuf>,
    /// The file to write, which must not exist; `-`: standard output.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) data: Data,
    /// The file to write; without it, or for `-`, standard output.
    pub(crate) file: Option<PathBuf>,
    /// Events alone, one a line, without positions and checksums: for other programs, and for imports into a store that
    /// has events of its own.
    #[arg(long)]
    pub(crate) plain: bool,
    /// Export although events were scavenged. Importing the copy assigns new positions and revisions, so stream metadata
    /// that names revisions hides other events than in this store.
    #[arg(long, requires = "plain")]
    pub(crate) allow_gaps: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Metadata {
    #[command(flatten)]
    pub(crate) data: Data,
    /// The stream.
    #[arg(long)]
    pub(crate) stream: StreamName,
    /// Expected revision of the metadata: any, none, or the revision of its last change.
    #[arg(
        long,
        default_value = "any",
        value_name = "any|none|N",
        requires = "content"
    )]
    pub(crate) expect: Expect,
    /// New metadata, a JSON object that replaces the old one; `-` reads standard input.
    #[arg(value_name = "JSON")]
    pub(crate) content: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Groups {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Print the result as JSON, one object per line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: GroupsCommand,
}

#[derive(Debug, Args)]
pub(crate) struct Consumers {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Print the result as JSON, one object per line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: ConsumersCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConsumersCommand {
    /// Lists all consumers with their checkpoints.
    List,
    /// Shows one consumer.
    Show {
        /// The consumer.
        consumer: ConsumerName,
    },
    /// Lists the parked events of a consumer, the oldest first.
    Parked {
        /// The consumer.
        consumer: ConsumerName,
        /// Only events of this key.
        #[arg(long)]
        key: Option<String>,
    },
    /// Requests that the parked events of an event's key are handled again, in order.
    Retry(ParkedEventArgs),
    /// Requests that a parked event is skipped permanently, and that the later ones of its key are handled.
    Skip(ParkedEventArgs),
    /// Moves the checkpoint of a consumer and ends its claim: events after it are handled again.
    Reset {
        /// The consumer.
        consumer: ConsumerName,
        /// The new checkpoint; 0 for the beginning.
        #[arg(long, value_name = "POSITION")]
        to: u64,
    },
    /// Removes a consumer with its parked events. It must not be running.
    Remove {
        /// The consumer.
        consumer: ConsumerName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ParkedEventArgs {
    /// The consumer.
    pub(crate) consumer: ConsumerName,
    /// The position of the parked event.
    pub(crate) position: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) data: Data,
    /// The stream.
    #[arg(long)]
    pub(crate) stream: StreamName,
    /// Expected state of the stream: any, none, exists, or the revision of its last event.
    #[arg(long, default_value = "any", value_name = "any|none|exists|N")]
    pub(crate) expect: Expect,
    /// Hard delete: refuse every later append to the stream and read of it.
    #[arg(long)]
    pub(crate) permanent: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Scavenge {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Maximum bytes per second that the scavenge reads and writes. Default: no maximum.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Print the SQL of every migration, and change nothing.
    #[arg(long)]
    pub(crate) show: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure.
    #[arg(value_enum)]
    pub(crate) mode: Mode,
    /// Where to measure; a new directory below it (in a database, a new schema or new collections) is used and removed.
    /// Without it, the system's temporary directory.
    #[arg(long, value_name = "STORE")]
    pub(crate) data: Option<PathBuf>,
    /// Writers at the same time; each waits for its append before the next.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub(crate) writers: u16,
    /// Readers at the same time, for stream-read.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub(crate) readers: u16,
    /// Events of an append.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) batch: u16,
    /// Bytes of an event's data.
    #[arg(long, default_value = "128", value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub(crate) size: u32,
    /// Streams the events are spread over.
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) streams: u64,
    /// Tags of an event.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(0..=64))]
    pub(crate) tags: u8,
    /// The condition of each append.
    #[arg(long, default_value = "none", value_enum)]
    pub(crate) condition: Condition,
    /// Seconds to measure.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) seconds: u64,
    /// Events to load before scan and stream-read.
    #[arg(long, default_value = "200000", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Durable appends.
    Append,
    /// Reading everything in order.
    Scan,
    /// Reading single streams, chosen at random.
    StreamRead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Condition {
    /// None.
    None,
    /// No event of the writer's own tag since its last append.
    OwnTag,
    /// No event ever of a tag that is new each time: uniqueness.
    FreshTag,
    /// No event since the start of a type that never happens.
    Type,
    /// The exact revision of the writer's own stream.
    Revision,
}
