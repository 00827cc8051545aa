//! Hints that something may have changed, for other processes: counters in one row, written after commits, coalesced,
//! and read again and again while somebody waits. The server has no notifications.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::tx::Shared;
use crate::clock::monotonic;
use crate::database::mysql::{Database, Purpose, Work};
use crate::store::sql::hints::{Counters, Hint};

/// Least time between two writes of one process: under load, many commits share one.
const PAUSE: Duration = Duration::from_millis(50);

const TELL: &str = "UPDATE {p}hints SET work = work + ?, wishes = wishes + ?, ends = ends + ?,
    writes = writes + 1";
/// The columns of the counters, of a table called `h`. The newest task too: one that was taken in within somebody else's
/// transaction is told by nobody.
macro_rules! counter_columns {
    () => {
        "h.work, h.wishes, h.ends, COALESCE((SELECT MAX(seq) FROM {p}tasks), 0)"
    };
}
pub(super) use counter_columns;

const READ: &str = concat!("SELECT ", counter_columns!(), " FROM {p}hints AS h");

/// Tells other processes what was committed here, until the handle is dropped.
pub(super) async fn tell(shared: Arc<Shared>) {
    let Shared { hints, database, .. } = &*shared;
    loop {
        let hint = hints.untold().await;
        // A hint may be lost: whoever waits polls too.
        if let Err(trouble) = database.within(Purpose::Work, tell_once(database, hint)).await {
            tracing::debug!(place = database.place(), ?trouble, "a hint was not told");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn tell_once(database: &Arc<Database>, hint: Hint) -> Work<()> {
    let mut session = database.begin(Purpose::Work).await?;
    let query = database.query(TELL, 1).bind(i64::from(hint.work)).bind(i64::from(hint.wishes));
    query.bind(i64::from(hint.ends)).execute(session.connection()).await?;
    session.commit().await
}

/// Looks for other processes' commits every `poll_interval` while somebody waits, until the handle is dropped.
pub(super) async fn listen(shared: Arc<Shared>, poll_interval: Duration) {
    let Shared { hints, database, .. } = &*shared;
    let mut last_look = monotonic();
    loop {
        let next_look = hints.next_look(last_look, poll_interval);
        if next_look > monotonic() {
            // In the meantime somebody else may look.
            tokio::time::sleep_until(next_look).await;
            continue;
        }
        last_look = monotonic();
        if hints.is_awaited()
            && let Ok(counters) = database.within(Purpose::Work, look(database)).await
        {
            hints.publish(hints.looked(counters, monotonic()));
        }
    }
}

async fn look(database: &Arc<Database>) -> Work<Counters> {
    let mut session = database.reading().await?;
    let row = database.query(READ, 1).fetch_one(session.connection()).await?;
    counters(&row, 0)
}

/// The counters, from this column of a row on.
pub(super) fn counters(row: &MySqlRow, column: usize) -> Work<Counters> {
    Ok([row.try_get(column)?, row.try_get(column + 1)?, row.try_get(column + 2)?, row.try_get(column + 3)?])
}
