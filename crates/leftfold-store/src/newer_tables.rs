//! Files of redb that a newer version wrote.
//!
//! **Owns:** [`unknown_table`]. **Does not know:** what the tables hold.
//! **Invariants:** a version that changes what a table holds gives the table another name. So a file with a table of a name that
//! is not known is not used: its content under the known names may be missing, or old.

use redb::{Database, Error, ReadableDatabase, TableHandle};

/// Returns the name of a table that is none of `known`, if there is one.
pub(crate) fn unknown_table(database: &Database, known: &[&str]) -> Result<Option<String>, Error> {
    let read = database.begin_read()?;
    let mut tables = read.list_tables()?;
    let unknown = tables.find(|table| !known.contains(&table.name()));
    Ok(unknown.map(|table| table.name().to_owned()))
}
