//! The transaction of the views, as the store appends through it.
//!
//! **Owns:** [`SqlxTransaction`]. **Does not know:** statements.
//! **Invariants:** parameters and columns pass as they are, in PostgreSQL's binary format.

use futures_util::{FutureExt, future::BoxFuture};
use leftfold_model::Bytes;
use leftfold_store::{DatabaseRows, DatabaseTransaction, DatabaseValue, StatementError};
use sqlx::{
    AssertSqlSafe, Column, Encode, PgConnection, Postgres, Row, Type, TypeInfo, ValueRef,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgRow, PgTypeInfo, types::Oid},
};

/// A transaction that `sqlx` drives.
pub(super) struct SqlxTransaction<'a>(pub(super) &'a mut PgConnection);

impl DatabaseTransaction for SqlxTransaction<'_> {
    fn query<'a>(
        &'a mut self,
        statement: &'a str,
        parameters: Vec<DatabaseValue>,
    ) -> BoxFuture<'a, Result<DatabaseRows, StatementError>> {
        let querying = async move {
            let mut query = sqlx::query(AssertSqlSafe(statement.to_owned()));
            for parameter in parameters {
                query = query.bind(Parameter(parameter));
            }
            let rows = query.fetch_all(&mut *self.0).await.map_err(failed)?;
            rows.iter().map(values).collect()
        };
        querying.boxed()
    }
}

fn failed(error: sqlx::Error) -> StatementError {
    let code = error.as_database_error().and_then(|answer| answer.code());
    StatementError {
        code: code.map(Into::into),
        message: error.to_string(),
    }
}

fn values(row: &PgRow) -> Result<Vec<DatabaseValue>, StatementError> {
    let value = |(index, column): (usize, &<Postgres as sqlx::Database>::Column)| {
        let kind = column.type_info();
        let unknown = || StatementError {
            code: None,
            message: format!("column {index} has a type without number: {}", kind.name()),
        };
        let type_oid = kind.oid().ok_or_else(unknown)?.0;
        let value = row.try_get_raw(index).map_err(failed)?;
        let bytes = match value.is_null() {
            true => None,
            false => {
                let bytes = value.as_bytes().map_err(|error| StatementError {
                    code: None,
                    message: error.to_string(),
                })?;
                Some(Bytes::copy_from_slice(bytes))
            }
        };
        Ok(DatabaseValue { type_oid, bytes })
    };
    row.columns().iter().enumerate().map(value).collect()
}

/// A parameter that is encoded already.
struct Parameter(DatabaseValue);

impl Type<Postgres> for Parameter {
    fn type_info() -> PgTypeInfo {
        // Each value says its own: see `produces`.
        PgTypeInfo::with_oid(Oid(0))
    }

    fn compatible(_: &PgTypeInfo) -> bool {
        true
    }
}

impl Encode<'_, Postgres> for Parameter {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(match &self.0.bytes {
            None => IsNull::Yes,
            Some(bytes) => {
                buffer.extend_from_slice(bytes);
                IsNull::No
            }
        })
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.0.type_oid)))
    }
}
