//! One write transaction, shared by the calls of a group: time, tallies and hints.

use rusqlite::Connection;

use super::claimed::Claimed;
use super::names::Names;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::store::Changes;

/// What every call of a group works on.
pub(super) struct Tx<'a> {
    pub(super) connection: &'a Connection,
    pub(super) names: &'a mut Names,
    pub(super) claimed: &'a mut Claimed,
    /// The store's time for the call that runs now.
    pub(super) now: Timestamp,
    pub(super) epoch: i64,
    /// The number of this commit.
    pub(super) op_seq: i64,
    /// The highest number of a row that was ever used.
    pub(super) seq: i64,
    /// What this transaction gives a hint of.
    pub(super) hint: Hint,
    changes: [i64; 3],
    rows_changed_before: u64,
    moved: Vec<Moved>,
    any_limit: Option<bool>,
}

/// Which counters of [`Changes`] to raise.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Hint {
    pub(super) work: bool,
    pub(super) wishes: bool,
    pub(super) ends: bool,
}

/// By how much a tally has changed.
struct Moved {
    lane: i64,
    stage: i64,
    by: i64,
}

impl<'a> Tx<'a> {
    /// Starts at the latest time that this file or this process knows of.
    pub(super) fn begin(
        connection: &'a Connection,
        names: &'a mut Names,
        claimed: &'a mut Claimed,
        latest: Timestamp,
    ) -> Result<Self> {
        claimed.begin(connection)?;
        let meta = "SELECT now, epoch, op_seq, seq, work, wishes, ends FROM meta";
        let (now, epoch, op_seq, seq, changes) = connection.prepare_cached(meta)?.query_row([], |row| {
            let changes = [row.get(4)?, row.get(5)?, row.get(6)?];
            Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?, row.get(3)?, changes))
        })?;
        Ok(Tx {
            connection,
            names,
            claimed,
            now: Timestamp::from_micros(now).max(latest),
            epoch,
            op_seq: op_seq + 1,
            seq,
            hint: Hint::default(),
            changes,
            rows_changed_before: connection.total_changes(),
            moved: Vec::new(),
            any_limit: None,
        })
    }

    /// The next call begins. Time never goes back.
    pub(super) fn advance(&mut self, called_at: Timestamp) {
        self.now = self.now.max(called_at);
    }

    /// A task came into a stage (+1) or left it (-1).
    pub(super) fn tally(&mut self, lane: i64, stage: i64, by: i64) {
        match self.moved.iter_mut().find(|moved| moved.lane == lane && moved.stage == stage) {
            Some(moved) => moved.by += by,
            None => self.moved.push(Moved { lane, stage, by }),
        }
    }

    /// Writes the tallies, so that they can be read.
    pub(super) fn write_tallies(&mut self) -> Result<()> {
        const ADD: &str = "INSERT INTO tallies (stage, lane, n) VALUES (?1, ?2, ?3)
            ON CONFLICT (stage, lane) DO UPDATE SET n = n + excluded.n";
        const TAKE: &str = "UPDATE tallies SET n = n - ?3 WHERE stage = ?1 AND lane = ?2";
        const FORGET: &str = "DELETE FROM tallies WHERE stage = ?1 AND lane = ?2 AND n = 0";
        for Moved { lane, stage, by } in self.moved.drain(..) {
            if by > 0 {
                self.connection.prepare_cached(ADD)?.execute([stage, lane, by])?;
            } else if by < 0 {
                self.connection.prepare_cached(TAKE)?.execute([stage, lane, -by])?;
                self.connection.prepare_cached(FORGET)?.execute([stage, lane])?;
            }
        }
        Ok(())
    }

    /// A task has left `running`: somebody may wait for its slot.
    pub(super) fn slot_freed(&mut self) -> Result<()> {
        const ANY: &str = "SELECT EXISTS (SELECT 1 FROM queues WHERE settings ->> 'concurrency' IS NOT NULL)";
        let any = match self.any_limit {
            Some(any) => any,
            None => self.connection.prepare_cached(ANY)?.query_row([], |row| row.get(0))?,
        };
        self.any_limit = Some(any);
        self.hint.work |= any;
        Ok(())
    }

    /// The settings of a queue change in this transaction.
    pub(super) fn limits_changed(&mut self) {
        self.any_limit = None;
    }

    /// Writes what is written once per transaction; nothing if no call has changed anything.
    pub(super) fn end(mut self) -> Result<(Changes, Timestamp)> {
        const META: &str = "UPDATE meta SET now = ?1, op_seq = ?2, work = ?3, wishes = ?4, ends = ?5, seq = ?6";
        self.write_tallies()?;
        if self.connection.total_changes() != self.rows_changed_before {
            let Hint { work, wishes, ends } = self.hint;
            for (counter, raise) in self.changes.iter_mut().zip([work, wishes, ends]) {
                *counter += i64::from(raise);
            }
            let [work, wishes, ends] = self.changes;
            let meta = [self.now.as_micros(), self.op_seq, work, wishes, ends, self.seq];
            self.connection.prepare_cached(META)?.execute(meta)?;
        }
        let [work, wishes, ends] = self.changes.map(i64::cast_unsigned);
        Ok((Changes { work, wishes, ends }, self.now))
    }
}

/// The counters of the last commit of any process.
pub(super) fn changes(connection: &Connection) -> Result<Changes> {
    let read = connection
        .prepare_cached("SELECT work, wishes, ends FROM meta")?
        .query_row([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
    let [work, wishes, ends] = read.map(i64::cast_unsigned);
    Ok(Changes { work, wishes, ends })
}
