//! The records that this connection has just claimed, remembered so that their ends need no read.
//!
//! What is remembered is what the rows hold, or it is forgotten: by every write of the row (all are in `rows`), after
//! a rollback, and when another connection has written to the file, of which SQLite keeps count.

use hashbrown::HashMap;
use rusqlite::Connection;

use super::rows::Stored;
use crate::error::Result;

/// Records by the numbers of their rows; only of tasks that run, so there are not many.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    records: HashMap<i64, Stored>,
    /// The count of writes by others when these were read.
    version: i64,
}

impl Claimed {
    /// A transaction begins, and nobody else can write until it ends.
    pub(super) fn begin(&mut self, connection: &Connection) -> Result<()> {
        let version = connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if self.version != version {
            self.forget_all();
            self.version = version;
        }
        Ok(())
    }

    /// Remembers a record as its row now is.
    pub(super) fn keep(&mut self, stored: Stored) {
        self.records.insert(stored.seq, stored);
    }

    /// The record of a row; forgotten here, for it is likely to change.
    pub(super) fn take(&mut self, seq: i64) -> Option<Stored> {
        self.records.remove(&seq)
    }

    /// A row is written.
    pub(super) fn forget(&mut self, seq: i64) {
        self.records.remove(&seq);
    }

    /// Any row may have been written.
    pub(super) fn forget_all(&mut self) {
        self.records.clear();
    }
}
