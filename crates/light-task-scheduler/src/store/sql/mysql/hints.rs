//! Hints that something may have changed, for other processes: counters in one row, written after commits, coalesced,
//! and read again and again while somebody waits. The server has no notifications.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;

use super::tx::Shared;
use crate::database::mysql::{Database, Purpose, Work};
use crate::store::sql::hints::Hint;

/// Least time between two writes of one process: under load, many commits share one.
const PAUSE: Duration = Duration::from_millis(50);

const TELL: &str = "UPDATE {p}hints SET work = work + ?, wishes = wishes + ?, ends = ends + ?,
    writes = writes + 1";
// The newest task too: one that was taken in within somebody else's transaction is told by nobody.
const READ: &str = "SELECT work, wishes, ends, COALESCE((SELECT MAX(seq) FROM {p}tasks), 0) FROM {p}hints";

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
    let mut seen: Option<[i64; 4]> = None;
    loop {
        tokio::time::sleep(poll_interval).await;
        if !hints.is_awaited() {
            continue;
        }
        let Ok(now) = database.within(Purpose::Work, look(database)).await else { continue };
        if let Some([work, wishes, ends, newest]) = seen {
            let hint =
                Hint { work: now[0] != work || now[3] != newest, wishes: now[1] != wishes, ends: now[2] != ends };
            hints.publish(hint);
        }
        seen = Some(now);
    }
}

async fn look(database: &Arc<Database>) -> Work<[i64; 4]> {
    let mut session = database.reading().await?;
    let row = database.query(READ, 1).fetch_one(session.connection()).await?;
    Ok([row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?])
}
