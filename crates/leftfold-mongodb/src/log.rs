//! The collection of commits: its operations and their time limits.
//!
//! **Owns:** [`Log`]: inserting a commit, finding commits, the newest one. **Does not know:** the purpose of a lookup.
//! **Invariants:** every operation has a time limit on this side; a page holds a bounded number of bytes; a response that
//! decides an append comes from a server that has the newest known commit, or it is discarded as stale.

use std::{cmp::Ordering, sync::Arc};

use futures_util::TryStreamExt;
use leftfold_model::Position;
use mongodb::{
    Client, Collection, Cursor, Database, IndexModel,
    bson::{Binary, Bson, Document, doc},
    options::IndexOptions,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    MongoOptions, OpenError,
    document::{CommitDocument, FORMAT_VERSION, Identity, to_u64},
    error::Failure,
};

/// Commits of a page at most.
const PAGE_COMMITS: u32 = 256;
/// Bytes of data and metadata after which a page is cut.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The newest commit, as far as later commits need to know it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Newest {
    #[serde(rename = "_id")]
    pub(crate) number: i64,
    pub(crate) last: i64,
    pub(crate) identity: Identity,
}

impl Newest {
    pub(crate) fn of(commit: &CommitDocument) -> Self {
        Self {
            number: commit.number,
            last: commit.last,
            identity: commit.identity.clone(),
        }
    }
}

/// What became of an insert.
#[derive(Debug)]
pub(crate) enum Inserted {
    Done,
    /// Another commit has this number.
    Taken,
}

/// The order of commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    OldestFirst,
    NewestFirst,
}

/// A selection of commits, as a cursor that stays open at the server between two pages.
///
/// The server may close it at any time, for example because nothing was read for ten minutes; the next page then fails.
#[derive(Debug)]
pub(crate) struct Pages {
    cursor: Cursor<CommitDocument>,
    log: Log,
}

impl Pages {
    /// Returns the next commits, checked, as many as fit a page.
    pub(crate) async fn next(&mut self) -> Result<Page, Failure> {
        let (mut commits, mut bytes) = (Vec::new(), 0);
        while commits.len() < PAGE_COMMITS as usize && bytes < PAGE_BYTES {
            let Some(commit) = self.log.within(self.cursor.try_next()).await? else {
                return Ok(Page {
                    commits,
                    more: false,
                });
            };
            commit.check()?;
            let events = commit.events.iter();
            bytes += events
                .map(|event| event.data.bytes.len() + event.metadata.bytes.len())
                .sum::<usize>();
            commits.push(commit);
        }
        Ok(Page {
            commits,
            more: true,
        })
    }
}

/// Commits of a selection, and whether there may be more behind them.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) commits: Vec<CommitDocument>,
    pub(crate) more: bool,
}

/// The store's collections.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    database: Database,
    commits: Collection<CommitDocument>,
    options: Arc<MongoOptions>,
}

impl Log {
    /// Connects, and makes collections and indexes that are missing.
    pub(crate) async fn open(options: MongoOptions) -> Result<Self, OpenError> {
        let driver = options.driver().await?;
        let client = Client::with_options(driver)
            .map_err(|error| OpenError::connect(Failure::from(error)))?;
        let database = client.database(&options.database);
        let commits = database.collection(&format!("{}commits", options.prefix));
        let log = Self {
            database,
            commits,
            options: Arc::new(options),
        };
        log.check_format().await?;
        log.ensure_indexes().await.map_err(OpenError::connect)?;
        Ok(log)
    }

    pub(crate) fn options(&self) -> &MongoOptions {
        &self.options
    }

    /// Returns a collection of the store beside that of its commits.
    pub(crate) fn collection<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        self.database
            .collection(&format!("{}{name}", self.options.prefix))
    }

    /// Drops the store's collections.
    pub(crate) async fn remove(&self) -> Result<(), Failure> {
        // The commits go last: as long as they are there, so is the store.
        for name in [
            "payloads",
            "snapshots",
            "consumers",
            "consumer_blocks",
            "streams",
            "erased",
            "format",
            "commits",
        ] {
            let collection = self.collection::<Document>(name);
            self.within(collection.drop().into_future()).await?;
        }
        Ok(())
    }

    /// Runs an operation, for no longer than the options allow.
    pub(crate) async fn within<T>(
        &self,
        operation: impl Future<Output = mongodb::error::Result<T>>,
    ) -> Result<T, Failure> {
        let limit = self.options.operation_timeout;
        match timeout(limit, operation).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Failure::TimedOut(limit)),
        }
    }

    /// Runs a command that changes nothing.
    pub(crate) async fn command(&self, command: Document) -> Result<Document, Failure> {
        self.within(self.database.run_command(command).into_future())
            .await
    }

    /// Refuses a store of another format, and marks a new one.
    async fn check_format(&self) -> Result<(), OpenError> {
        #[derive(Serialize, Deserialize)]
        struct Format {
            #[serde(rename = "_id")]
            id: String,
            version: i64,
        }
        let formats = self.collection::<Format>("format");
        let own = || Format {
            id: "store".to_owned(),
            version: FORMAT_VERSION,
        };
        let looking = formats.find_one(doc! { "_id": "store" }).into_future();
        let found = self.within(looking).await.map_err(OpenError::connect)?;
        let found = match found {
            Some(found) => found,
            None => match self.within(formats.insert_one(own()).into_future()).await {
                Ok(_) => own(),
                Err(failure) if failure.is_duplicate_key() => own(),
                Err(failure) => return Err(OpenError::connect(failure)),
            },
        };
        let store = || format!("{}/{}", self.options.database, self.options.prefix);
        let (found, known) = (found.version, FORMAT_VERSION);
        match found.cmp(&known) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(OpenError::Newer {
                store: store(),
                found,
                known,
            }),
            Ordering::Less => Err(OpenError::Older {
                store: store(),
                found,
                known,
            }),
        }
    }

    /// Creates the indexes that are missing, by their names.
    async fn ensure_indexes(&self) -> Result<(), Failure> {
        let present = match self
            .within(self.commits.list_index_names().into_future())
            .await
        {
            Ok(names) => names,
            Err(failure) if failure.is_missing_collection() => Vec::new(),
            Err(failure) => return Err(failure),
        };
        let mut by_last = index("last", &["last"]);
        if let Some(options) = &mut by_last.options {
            options.unique = Some(true);
        }
        let missing: Vec<IndexModel> = [by_last, index("keys", &["keys", "last"])]
            .into_iter()
            .filter(|model| {
                let name = model
                    .options
                    .as_ref()
                    .and_then(|options| options.name.as_ref());
                name.is_some_and(|name| !present.contains(name))
            })
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let creating = self.commits.create_indexes(missing).into_future();
        self.within(creating).await.map(drop)
    }

    /// Finds the newest commit that a majority of the servers has.
    pub(crate) async fn newest(&self) -> Result<Option<Newest>, Failure> {
        let commits = self.commits.clone_with_type::<Newest>();
        let finding = commits
            .find_one(doc! {})
            .sort(doc! { "_id": -1 })
            .projection(doc! { "_id": 1, "last": 1, "identity": 1 })
            .into_future();
        self.within(finding).await
    }

    /// Finds the position of the newest event.
    pub(crate) async fn head(&self) -> Result<Position, Failure> {
        match self.newest().await? {
            Some(newest) => Ok(Position::new(to_u64(newest.last)?)),
            None => Ok(Position::START),
        }
    }

    /// Finds who made the commit of this number, if there is one.
    pub(crate) async fn identity(&self, number: i64) -> Result<Option<Identity>, Failure> {
        let commits = self.commits.clone_with_type::<Newest>();
        let finding = commits
            .find_one(doc! { "_id": number })
            .projection(doc! { "_id": 1, "last": 1, "identity": 1 })
            .into_future();
        Ok(self.within(finding).await?.map(|found| found.identity))
    }

    /// Inserts a commit, unless its number is taken.
    pub(crate) async fn insert(&self, commit: &CommitDocument) -> Result<Inserted, Failure> {
        match self
            .within(self.commits.insert_one(commit).into_future())
            .await
        {
            Ok(_) => Ok(Inserted::Done),
            Err(failure) if failure.is_duplicate_key() => Ok(Inserted::Taken),
            Err(failure) => Err(failure),
        }
    }

    /// Replaces a commit by the same one with events erased, if no one else rewrote it since. Returns whether it did.
    pub(crate) async fn rewrite(&self, commit: &CommitDocument) -> Result<bool, Failure> {
        let filter = doc! { "_id": commit.number, "generation": commit.generation - 1 };
        let replacing = self.commits.replace_one(filter, commit).into_future();
        Ok(self.within(replacing).await?.matched_count == 1)
    }

    /// Finds commits in an order, checked, as many as fit a page.
    pub(crate) async fn page(&self, filter: Document, order: Order) -> Result<Page, Failure> {
        let mut pages = self.find(filter, order, Some(PAGE_COMMITS)).await?;
        pages.next().await
    }

    /// Finds commits in an order, to be returned page by page.
    pub(crate) async fn pages(&self, filter: Document, order: Order) -> Result<Pages, Failure> {
        self.find(filter, order, None).await
    }

    async fn find(
        &self,
        filter: Document,
        order: Order,
        limit: Option<u32>,
    ) -> Result<Pages, Failure> {
        let direction = if order == Order::OldestFirst { 1 } else { -1 };
        let mut finding = self
            .commits
            .find(filter)
            .sort(doc! { "last": direction })
            .batch_size(PAGE_COMMITS);
        if let Some(limit) = limit {
            finding = finding.limit(limit.into());
        }
        Ok(Pages {
            cursor: self.within(finding.into_future()).await?,
            log: self.clone(),
        })
    }

    /// Finds the parts of commits that decide an append, and hands them to `take` until it returns false.
    ///
    /// The newest commit known is looked for too: an answer without it comes from a server that lags behind, and is refused.
    /// Such a server has the beginning of the log, so what it finds first, oldest first, is right in any case.
    pub(crate) async fn look_up(
        &self,
        newest: &Newest,
        filter: Document,
        projection: Document,
        order: Order,
        mut take: impl FnMut(CommitPart) -> bool,
    ) -> Result<(), Failure> {
        let direction = if order == Order::OldestFirst { 1 } else { -1 };
        let commits = self.commits.clone_with_type::<CommitPart>();
        let finding = commits
            .find(doc! { "$or": [{ "last": newest.last }, filter] })
            .sort(doc! { "last": direction })
            .projection(projection)
            .into_future();
        let mut cursor = self.within(finding).await?;
        let mut confirmed = false;
        while let Some(part) = self.within(cursor.try_next()).await? {
            // What came after the newest commit known is met by the insert that follows.
            if part.number > newest.number {
                continue;
            }
            confirmed |= part.number == newest.number;
            if !confirmed && order == Order::NewestFirst {
                return Err(Failure::Stale(newest.number));
            }
            if !take(part) {
                return Ok(());
            }
        }
        if confirmed {
            Ok(())
        } else {
            Err(Failure::Stale(newest.number))
        }
    }
}

/// Returns an index of this name over these fields, ascending.
fn index(name: &str, fields: &[&str]) -> IndexModel {
    let keys: Document = fields
        .iter()
        .map(|field| ((*field).to_owned(), Bson::Int32(1)))
        .collect();
    let options = IndexOptions::builder().name(name.to_owned()).build();
    IndexModel::builder().keys(keys).options(options).build()
}

/// A part of a commit: what a projection leaves of it.
#[derive(Debug, Deserialize)]
pub(crate) struct CommitPart {
    #[serde(rename = "_id")]
    pub(crate) number: i64,
    #[serde(default)]
    pub(crate) events: Vec<EventPart>,
}

/// A part of an event: what a projection leaves of it.
#[derive(Debug, Deserialize)]
pub(crate) struct EventPart {
    #[serde(default)]
    pub(crate) position: i64,
    #[serde(default)]
    pub(crate) stream: String,
    #[serde(default)]
    pub(crate) revision: i64,
    #[serde(default)]
    pub(crate) id: Option<Binary>,
    #[serde(default, rename = "type")]
    pub(crate) event_type: String,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    #[serde(default)]
    pub(crate) time: i64,
}
