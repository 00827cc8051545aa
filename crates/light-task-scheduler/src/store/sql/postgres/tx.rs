//! One transaction of the store, and what all of a handle's transactions share.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::database::home::Home;
use crate::database::postgres::{Database, Session, Work};
use crate::store::sql::floors::{Floors, Looks};
use crate::store::sql::gather::Gather;
use crate::store::sql::hints::{Hint, Hints};
use crate::store::sql::ids;
use crate::store::sql::lanes::{Lane, Lanes};
use crate::store::sql::plan::{EmptyClaims, Key};
use crate::store::sql::tally::Tally;
use crate::task::TaskId;

/// The server's time in a statement, in microseconds since 1970.
macro_rules! now {
    () => {
        "{now}"
    };
}
pub(super) use now;

const TELL: &str = "INSERT INTO {s}.tallies (lane, stage, n)
    SELECT * FROM unnest($1::integer[], $2::smallint[], $3::bigint[])";

/// A statement and its values.
pub(super) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// What all transactions of a handle share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) database: Arc<Database>,
    /// In the ids that are made in this database.
    pub(super) salt: i64,
    /// Where the replicas of this handle live.
    pub(super) home: Option<Home>,
    pub(super) lanes: Lanes,
    pub(super) hints: Hints,
    /// Marks notifications of this handle, which knows already.
    pub(super) origin: Uuid,
    /// Added to the server's time: zero outside tests.
    pub(super) time_offset: Arc<AtomicI64>,
    pub(super) empty_claims: EmptyClaims,
    pub(super) gather: Gather,
    pub(super) floors: Floors,
    /// The number up to which sweeps have looked for what is old, beside those who begin at the first.
    pub(super) swept: AtomicI64,
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
    /// By how much this changes the numbers of tasks, beyond what its statements have told already.
    pub(super) tally: Tally,
    /// The first task that this makes ready in a lane.
    pub(super) arrived: Vec<(i32, Key)>,
    /// What a claim has learnt of lanes.
    pub(super) looks: Option<Looks>,
}

impl<'c> Tx<'c> {
    pub(super) fn new(session: Session<'c>, shared: Arc<Shared>) -> Self {
        Tx {
            session,
            shared,
            hint: Hint::default(),
            made: Vec::new(),
            tally: Tally::default(),
            arrived: Vec::new(),
            looks: None,
        }
    }

    /// Commits, and tells who waits.
    pub(super) async fn commit(mut self) -> Work<()> {
        self.save_tally().await?;
        let Tx { session, shared, hint, made, arrived, looks, tally: _ } = self;
        session.commit().await?;
        shared.lanes.keep(made);
        // Before anybody hears of the commit: what begins now must find what it has made ready.
        arrived.into_iter().for_each(|(lane, first)| shared.floors.arrived(lane, first));
        if let Some(looks) = looks {
            shared.floors.keep(looks);
        }
        shared.hints.raise(hint);
        Ok(())
    }

    /// Writes by how much this changes the numbers of tasks: before the commit, within it.
    pub(super) async fn save_tally(&mut self) -> Work<()> {
        let (lanes, stages, counts) = self.tally.take();
        if !lanes.is_empty() {
            self.query(TELL).bind(lanes).bind(stages).bind(counts).execute(self.connection()).await?;
        }
        Ok(())
    }

    /// A statement from a constant whose first values are the ids that [`has_id`] names.
    pub(super) fn of_ids<'q, 'i>(
        &self,
        template: &'static str,
        ids: impl Iterator<Item = &'i TaskId> + Clone,
    ) -> Statement<'q> {
        let Ids { seqs, texts } = Ids::new(self.shared.salt, ids);
        self.query(template).bind(seqs).bind(texts)
    }

    /// A statement from a constant.
    pub(super) fn query<'q>(&self, template: &'static str) -> Statement<'q> {
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

/// The condition on a table called `t` that a row has one of some [`Ids`], the first two values of the statement. It may
/// find more: who asks looks at the ids of what was found.
macro_rules! has_id {
    () => {
        "t.seq = ANY($1::bigint[] || ARRAY(SELECT i.seq FROM {s}.tasks AS i WHERE i.id = ANY($2::text[])))"
    };
}
pub(super) use has_id;

/// Ids as a statement takes them.
pub(super) struct Ids {
    /// The numbers of the rows to which those lead that may have been made here.
    pub(super) seqs: Vec<i64>,
    /// All of them, in order and each once: anybody may give any id.
    pub(super) texts: Vec<String>,
}

impl Ids {
    pub(super) fn new<'i>(salt: i64, ids: impl Iterator<Item = &'i TaskId> + Clone) -> Self {
        let seqs = ids.clone().filter_map(|id| ids::place(salt, id)).map(|place| place.seq).collect();
        let mut texts: Vec<String> = ids.map(TaskId::to_string).collect();
        texts.sort_unstable();
        texts.dedup();
        Ids { seqs, texts }
    }
}
