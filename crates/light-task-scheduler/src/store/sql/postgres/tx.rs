//! One transaction of the store, and what all of a handle's transactions share.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::database::postgres::{Database, Session, Work};
use crate::store::sql::hints::{Hint, Hints};
use crate::store::sql::lanes::{Lane, Lanes};
use crate::store::sql::plan::EmptyClaims;
use crate::task::TaskId;

/// The server's time in a statement, in microseconds since 1970.
macro_rules! now {
    () => {
        "{now}"
    };
}
pub(super) use now;

/// What all transactions of a handle share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) database: Arc<Database>,
    pub(super) lanes: Lanes,
    pub(super) hints: Hints,
    /// Marks notifications of this handle, which knows already.
    pub(super) origin: Uuid,
    /// Added to the server's time: zero outside tests.
    pub(super) time_offset: Arc<AtomicI64>,
    pub(super) empty_claims: EmptyClaims,
}

impl Shared {
    /// What is added to the server's time, in microseconds.
    pub(super) fn offset(&self) -> i64 {
        self.time_offset.load(SeqCst)
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
    pub(super) fn query<'q>(&self, template: &'static str) -> Query<'q, Postgres, PgArguments> {
        self.session.query(template)
    }

    /// What to execute statements on.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.session.connection()
    }

    /// The store's time, from the server's.
    pub(super) fn time(&self, server: i64) -> Timestamp {
        Timestamp::from_micros(server.saturating_add(self.shared.offset()))
    }

    /// Asks for the time, where no statement brings it along.
    pub(super) async fn now(&mut self) -> Result<Timestamp, sqlx::Error> {
        let query = self.query(concat!("SELECT ", now!()));
        let row = query.fetch_one(self.connection()).await?;
        Ok(self.time(sqlx::Row::try_get(&row, 0)?))
    }
}

/// Ids as a statement takes them, in order and each once.
pub(super) fn texts<'i>(ids: impl Iterator<Item = &'i TaskId>) -> Vec<String> {
    let mut texts: Vec<String> = ids.map(TaskId::to_string).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}
