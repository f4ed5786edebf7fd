//! Statements of a transaction, whichever driver executes them.
//!
//! **Owns:** [`Statements`] and [`ResultRow`], for this crate's driver and for the driver of an application.
//! **Does not know:** any statement. **Invariants:** values have PostgreSQL's binary format; a value of another type than the
//! caller expects is an error.

use bytes::BytesMut;
use leftfold_store::{DatabaseTransaction, DatabaseValue};
use tokio::sync::Mutex;
use tokio_postgres::{
    Client, Row, Transaction,
    types::{FromSql, IsNull, ToSql, Type},
};

use crate::error::Failure;

/// Parameters with their types, so that no round trip is spent on inferring them.
pub(crate) type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// What executes statements of one session, in the order in which they were first polled.
pub(crate) trait Statements: Send + Sync {
    /// A row of a result.
    type Row: ResultRow + Send + Sync;

    /// Executes a statement with parameters of these types, and returns its rows.
    fn rows(
        &self,
        sql: &str,
        params: Params<'_>,
    ) -> impl Future<Output = Result<Vec<Self::Row>, Failure>> + Send;
}

/// A row of a result.
pub(crate) trait ResultRow {
    /// Decodes a column, or says why it cannot be.
    fn value<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T, String>;
}

impl ResultRow for Row {
    fn value<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T, String> {
        self.try_get(column).map_err(|error| error.to_string())
    }
}

impl Statements for Client {
    type Row = Row;

    async fn rows(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failure> {
        Ok(self.query_typed(sql, params).await?)
    }
}

impl Statements for Transaction<'_> {
    type Row = Row;

    async fn rows(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failure> {
        Ok(self.query_typed(sql, params).await?)
    }
}

/// A transaction that the application's driver executes.
pub(crate) struct DrivenTransaction<'a>(Mutex<&'a mut dyn DatabaseTransaction>);

impl<'a> DrivenTransaction<'a> {
    pub(crate) fn new(transaction: &'a mut dyn DatabaseTransaction) -> Self {
        Self(Mutex::new(transaction))
    }
}

impl Statements for DrivenTransaction<'_> {
    type Row = DrivenRow;

    async fn rows(&self, sql: &str, params: Params<'_>) -> Result<Vec<DrivenRow>, Failure> {
        let values = params.iter().map(|(value, kind)| {
            let mut bytes = BytesMut::new();
            let null = value.to_sql_checked(kind, &mut bytes);
            let null = null.map_err(|error| Failure::Parameter(error.to_string()))?;
            Ok(DatabaseValue {
                type_oid: kind.oid(),
                bytes: matches!(null, IsNull::No).then(|| bytes.freeze()),
            })
        });
        let values = values.collect::<Result<Vec<_>, Failure>>()?;
        let rows = self.0.lock().await.query(sql, values).await?;
        Ok(rows.into_iter().map(DrivenRow).collect())
    }
}

/// A row that the application's driver returned.
pub(crate) struct DrivenRow(Vec<DatabaseValue>);

impl ResultRow for DrivenRow {
    fn value<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T, String> {
        let value = self.0.get(column);
        let value = value.ok_or_else(|| format!("row has no column {column}"))?;
        let kind = Type::from_oid(value.type_oid)
            .filter(|kind| T::accepts(kind))
            .ok_or_else(|| format!("column {column} has type {}", value.type_oid))?;
        let decoded = T::from_sql_nullable(&kind, value.bytes.as_deref());
        decoded.map_err(|error| format!("column {column} cannot be decoded: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &'static [u8], kind: &Type) -> DatabaseValue {
        DatabaseValue {
            type_oid: kind.oid(),
            bytes: Some(bytes.into()),
        }
    }

    #[test]
    fn a_driven_row_decodes_what_it_holds_and_names_what_it_cannot() {
        let null = DatabaseValue {
            type_oid: Type::TEXT.oid(),
            bytes: None,
        };
        let row = DrivenRow(vec![value(&[0, 0, 0, 7], &Type::INT4), null]);
        assert_eq!(row.value::<i32>(0), Ok(7));
        assert_eq!(row.value::<Option<&str>>(1), Ok(None));
        assert!(row.value::<&str>(1).is_err());
        assert_eq!(
            row.value::<i64>(0),
            Err("column 0 has type 23".to_owned()),
            "a wider number than the column holds"
        );
        assert_eq!(row.value::<i32>(2), Err("row has no column 2".to_owned()));
    }
}
