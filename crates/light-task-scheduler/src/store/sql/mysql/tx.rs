//! One transaction of the store, and what all of a handle's transactions share.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{Encode, MySql, MySqlConnection, Row, Type};

use crate::clock::Timestamp;
use crate::database::home::Home;
use crate::database::mysql::sql::LIST_MAX;
use crate::database::mysql::{Database, Session, Work};
use crate::store::sql::gather::Gather;
use crate::store::sql::hints::{Hint, Hints};
use crate::store::sql::lanes::{Lane, Lanes};
use crate::store::sql::plan::EmptyClaims;
use crate::task::TaskId;

/// The server's time in a statement, in microseconds since 1970: when the statement began, whatever the
/// session's time zone is.
macro_rules! now {
    () => {
        "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
    };
}
pub(super) use now;

/// A statement and its values.
pub(super) type Statement<'q> = Query<'q, MySql, MySqlArguments>;

/// What all transactions of a handle share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) database: Arc<Database>,
    /// Where the replicas of this handle live.
    pub(super) home: Option<Home>,
    /// In the ids that are made in this database.
    pub(super) salt: i64,
    pub(super) lanes: Lanes,
    pub(super) hints: Hints,
    /// Added to the server's time: zero outside tests.
    pub(super) time_offset: Arc<AtomicI64>,
    /// The offset is the time: for tests that compare every moment.
    pub(super) time_stopped: bool,
    pub(super) empty_claims: EmptyClaims,
    pub(super) gather: Gather,
}

impl Shared {
    /// How the store's time is made from the server's: by this factor, and this is added.
    pub(super) fn clock(&self) -> (i64, i64) {
        (i64::from(!self.time_stopped), self.time_offset.load(SeqCst))
    }
}

/// A transaction, or a connection for one read.
pub(super) struct Tx<'c> {
    pub(super) session: Session<'c>,
    pub(super) shared: Arc<Shared>,
    pub(super) hint: Hint,
    /// Lanes that are there once this is committed.
    pub(super) made: Vec<(i32, Lane)>,
}

impl<'c> Tx<'c> {
    pub(super) fn new(session: Session<'c>, shared: Arc<Shared>) -> Self {
        Tx { session, shared, hint: Hint::default(), made: Vec::new() }
    }

    /// Commits, and tells who waits.
    pub(super) async fn commit(self) -> Work<()> {
        let Tx { session, shared, hint, made } = self;
        session.commit().await?;
        shared.lanes.keep(made);
        shared.hints.raise(hint);
        Ok(())
    }

    /// A statement from a constant.
    pub(super) fn query<'q>(&self, template: &'static str) -> Statement<'q> {
        self.session.database().query(template, 1)
    }

    /// A statement with so many rows.
    pub(super) fn rows<'q>(&self, template: &'static str, count: usize) -> Statement<'q> {
        self.session.database().query(template, count)
    }

    /// A statement with lists of [`filled_len`] values.
    pub(super) fn listed<'q>(&self, template: &'static str, len: usize) -> Statement<'q> {
        self.session.database().query(template, filled_len(len))
    }

    /// Executes a statement whose only values are a list, part by part.
    pub(super) async fn for_all<T: Value>(&mut self, template: &'static str, values: &[T]) -> Work<()> {
        for part in values.chunks(LIST_MAX) {
            let query = bind_all(self.listed(template, part.len()), filled(part, part.len()));
            query.execute(self.connection()).await?;
        }
        Ok(())
    }

    /// What a statement finds whose only values are a list, part by part.
    pub(super) async fn find_all<T: Value>(&mut self, template: &'static str, values: &[T]) -> Work<Vec<MySqlRow>> {
        let mut found = Vec::new();
        for part in values.chunks(LIST_MAX) {
            let query = bind_all(self.listed(template, part.len()), filled(part, part.len()));
            found.append(&mut query.fetch_all(self.connection()).await?);
        }
        Ok(found)
    }

    /// What to execute statements on.
    pub(super) fn connection(&mut self) -> &mut MySqlConnection {
        self.session.connection()
    }

    /// Undoes all that it has done, and goes on as if it had just begun.
    pub(super) async fn begin_anew(&mut self) -> Work<()> {
        sqlx::raw_sql("ROLLBACK; START TRANSACTION").execute(self.connection()).await?;
        (self.hint, self.made) = (Hint::default(), Vec::new());
        Ok(())
    }

    /// The store's time, from the server's.
    pub(super) fn time(&self, server: i64) -> Timestamp {
        let (factor, offset) = self.shared.clock();
        Timestamp::from_micros(server.saturating_mul(factor).saturating_add(offset))
    }

    /// Asks for the time, where no statement brings it along.
    pub(super) async fn now(&mut self) -> Work<Timestamp> {
        let query = self.query(concat!("SELECT ", now!()));
        let row = query.fetch_one(self.connection()).await?;
        Ok(self.time(row.try_get(0)?))
    }
}

/// What can be in a list.
pub(super) trait Value: Clone + Send + Sync + for<'q> Encode<'q, MySql> + Type<MySql> {}
impl<T: Clone + Send + Sync + for<'q> Encode<'q, MySql> + Type<MySql>> Value for T {}

/// How many values a list of `len` is filled up to: a few sizes only, so that few statements are prepared.
pub(super) fn filled_len(len: usize) -> usize {
    len.next_power_of_two()
}

/// The values, and the last one again and again, as many as a list of `len` has.
pub(super) fn filled<T: Clone>(values: &[T], len: usize) -> impl Iterator<Item = T> {
    let missing = filled_len(len).saturating_sub(values.len());
    values.iter().cloned().chain(values.last().cloned().into_iter().cycle().take(missing))
}

/// Binds values, one after the other.
pub(super) fn bind_all<'q, T: Value + 'q>(query: Statement<'q>, values: impl Iterator<Item = T>) -> Statement<'q> {
    values.fold(query, |query, value| query.bind(value))
}

/// Ids as a statement takes them, in order and each once.
pub(super) fn texts<'i>(ids: impl Iterator<Item = &'i TaskId>) -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> = ids.map(|id| id.with_str(|text| text.as_bytes().to_vec())).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// Bytes of a column that holds a text.
pub(super) fn text(bytes: &[u8]) -> Work<&str> {
    Ok(std::str::from_utf8(bytes).map_err(|e| crate::store::sql::codec::unreadable("text", e))?)
}
