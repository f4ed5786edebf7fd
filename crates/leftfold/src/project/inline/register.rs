//! Making a projection inline.
//!
//! **Owns:** [`Project::inline`], and what a store and a view must be for it. **Does not know:** appends.
//! **Invariants:** a projection is inline only after its version was built and readers see it.

use std::sync::Arc;

use leftfold_store::{AppendError, TransactionAppender};
use sqlx::PgPool;

use super::{
    PgTransaction,
    driver::SqlxTransaction,
    error::{Failure, InlineError},
    store::InlineStore,
    view::{InlineView, TypedView},
};
use crate::{
    Boundary, LoadError, PostgresView, Projection, ProjectionHandle, Store, project::Project,
};

impl<P: Projection<View = PostgresView>> Project<P> {
    /// Has every append through the returned store write the projection in its own transaction: an event is in the log and in the
    /// view, or in neither. Waits until the version is built from the log, as [`Self::spawn`] does it.
    ///
    /// The store must be over PostgreSQL, and the view in the same database. Give the returned store to the repositories
    /// and to further inline projections.
    ///
    /// # Guarantees
    /// - Readers that see an event's position acknowledged see the event in the view.
    /// - An event that the projection fails on is refused: the append is an error that names the projection and the event, and
    ///   nothing is written. A command reports it as [`ExecuteError::Refused`](crate::ExecuteError::Refused).
    /// - Events of appenders that do not write the view (other programs, or a store from before this call) are noticed by the
    ///   next append that does, and written first, in order. Until then, the task of the handle follows them as that of
    ///   [`Self::spawn`] does.
    ///
    /// # Limits
    /// - Appends that write one projection take turns, whatever process they come from, a commit each: use it where readers
    ///   cannot wait. Appends of other events are as fast as before.
    /// - An append and its views have [`Self::inline_budget`]. After three attempts that other appends overtook, the fourth holds
    ///   all other appends up while it writes its views.
    /// - Once another program raised the version, appends through this store are refused as superseded.
    /// - Set keys ([`Store::with_keys`]) before, so that the view is written from the personal fields as reads return them.
    ///
    /// # Errors
    /// [`InlineError`].
    /// # Example
    /// See the guide's chapter on projections.
    pub async fn inline(self) -> Result<(Store, ProjectionHandle<PostgresView>), InlineError> {
        let projection = P::NAME;
        if self.settings.park {
            return Err(InlineError::Parks { projection });
        }
        if self.store.has_tenant() {
            return Err(InlineError::Tenant { projection });
        }
        let earlier = self.store.inline().cloned();
        let plain = plain(&self.store, earlier.as_ref());
        let appender = plain.unsealed().transaction_appender();
        let appender = appender.ok_or(InlineError::UnsupportedStore { projection })?;
        let pool = self.view.pool().clone();
        check_database(projection, &*appender, &pool, earlier.as_ref()).await?;

        let query = Boundary::types([]).query::<P::Event>();
        let query = query.map_err(LoadError::from)?;
        let budget = self.settings.inline_budget;
        let project = Self {
            store: plain.clone(),
            ..self
        };
        let projection = Arc::clone(&project.projection);
        let handle = project.spawn();
        handle.ready().await?;
        let view: Arc<dyn InlineView> = Arc::new(TypedView {
            projection,
            store: plain.clone(),
            query,
            budget,
            progress: Arc::clone(&handle.progress),
            known: Arc::default(),
        });
        let views = earlier.iter().flat_map(InlineStore::views);
        let views = views.filter(|known| known.id().name != P::NAME).cloned();
        let views = views.chain([view]).collect();
        let pool = earlier
            .as_ref()
            .map_or(pool, |earlier| earlier.pool().clone());
        let inline = InlineStore::new(plain.clone(), pool, appender, views);
        Ok((plain.with_inline(inline), handle))
    }
}

/// Returns the store without inline projections, with the keys of the given one.
fn plain(store: &Store, earlier: Option<&InlineStore>) -> Store {
    let Some(earlier) = earlier else {
        return store.clone();
    };
    let plain = earlier.plain().clone();
    match (store.erasure(), plain.erasure()) {
        (Some(erasure), None) => plain.with_shared_keys(erasure.keys()),
        _ => plain,
    }
}

/// Makes sure that one transaction reaches the log, the view, and the views that are inline already.
async fn check_database(
    projection: &'static str,
    appender: &dyn TransactionAppender,
    pool: &PgPool,
    earlier: Option<&InlineStore>,
) -> Result<(), InlineError> {
    let mut transaction = begin(pool).await?;
    let mut driver = SqlxTransaction(&mut transaction);
    let same = appender.is_same_database(&mut driver).await?;
    if !same {
        let expected = "the database of the store";
        return Err(InlineError::OtherDatabase {
            projection,
            expected,
        });
    }
    // Whether the role of the view's connections may read and append is better known now.
    appender.log_end(&mut driver, &[], true).await?;
    if let Some(earlier) = earlier {
        let mut other = begin(earlier.pool()).await?;
        if tables(&mut transaction).await? != tables(&mut other).await? {
            let expected = "the schema of the views that are inline already";
            return Err(InlineError::OtherDatabase {
                projection,
                expected,
            });
        }
    }
    Ok(())
}

async fn begin(pool: &PgPool) -> Result<PgTransaction, AppendError> {
    let begun = pool.begin().await;
    begun.map_err(|error| Failure::database(error).into_append_error())
}

/// Returns the table of checkpoints that the search path leads to.
async fn tables(transaction: &mut PgTransaction) -> Result<Option<i64>, AppendError> {
    let find = "select to_regclass('leftfold_projections')::oid::bigint";
    let found = sqlx::query_scalar(find).fetch_one(&mut **transaction).await;
    found.map_err(|error| Failure::database(error).into_append_error())
}
