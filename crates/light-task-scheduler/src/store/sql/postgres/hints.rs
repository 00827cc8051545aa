//! Hints that something may have changed: told after commits, coalesced, to other processes by a
//! notification, and by one row of counters for those that cannot hear notifications.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::{PgListener, PgRow};
use uuid::Uuid;

use super::tx::{Shared, Tx};
use crate::clock::monotonic;
use crate::database::postgres::{Database, Purpose, Work};
use crate::store::sql::hints::{Counters, Hint};

/// Least time between two notifications of one process: under load, many commits share one.
const PAUSE: Duration = Duration::from_millis(10);
/// How often to look at the counters while notifications come.
const LISTENING_INTERVAL: Duration = Duration::from_secs(5);
/// How long to wait before the connection for notifications is made again.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

// Committed without waiting for the disk: a hint that a crash takes is no loss.
const TELL: &str = "WITH told AS (UPDATE {s}.hints SET work = work + $1, wishes = wishes + $2, ends = ends + $3
    RETURNING set_config('synchronous_commit', 'off', true))
    SELECT pg_notify($4, $5) FROM told";
const READ: &str = "SELECT work, wishes, ends FROM {s}.hints";

/// Tells other processes what was committed here, until the handle is dropped.
pub(super) async fn tell(shared: Arc<Shared>) {
    let Shared { hints, origin, database, .. } = &*shared;
    let channel = channel(database);
    loop {
        let hint = hints.untold().await;
        // A hint may be lost: whoever waits polls too.
        if let Err(trouble) = database.within(Purpose::Work, tell_once(database, &channel, *origin, hint)).await {
            tracing::debug!(place = database.place(), ?trouble, "a hint was not told");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Has a transaction of somebody else's tell of its commit itself. This handle hears of it like all others.
pub(super) async fn tell_at_commit(tx: &mut Tx<'_>) -> Work<()> {
    let Hint { work, .. } = tx.hint;
    if work && !tx.shared.database.is_pooled() {
        let channel = channel(&tx.shared.database);
        let query = tx.query("SELECT pg_notify($1, $2)").bind(channel).bind(format!("{} w", Uuid::nil()));
        query.execute(tx.connection()).await?;
    }
    Ok(())
}

async fn tell_once(database: &Arc<Database>, channel: &str, origin: Uuid, hint: Hint) -> Work<()> {
    let letter = |set: bool, letter| if set { letter } else { "" };
    let payload = format!("{origin} {}{}{}", letter(hint.work, "w"), letter(hint.wishes, "c"), letter(hint.ends, "e"));
    // One statement is a transaction.
    let mut session = database.reading().await?;
    let query = session.query(TELL).bind(i64::from(hint.work)).bind(i64::from(hint.wishes)).bind(i64::from(hint.ends));
    query.bind(channel).bind(payload).execute(session.connection()).await?;
    session.commit().await
}

/// Hears of other processes' commits, until the handle is dropped: by notification where there is one, and
/// by looking at the counters while somebody waits, every `poll_interval` if there is none.
pub(super) async fn listen(shared: Arc<Shared>, poll_interval: Duration) {
    let Shared { hints, origin, database, .. } = &*shared;
    let channel = channel(database);
    let origin = origin.to_string();
    let (mut listener, mut last_look) = (None, monotonic());
    let mut next_try = last_look;
    loop {
        if listener.is_none() && !database.is_pooled() && monotonic() >= next_try {
            next_try = monotonic() + RECONNECT_DELAY;
            listener = database.listen(&channel).await.ok();
            if listener.is_some() {
                // What was committed before it listened.
                publish(&shared, Hint::ALL);
            }
        }
        let interval = if listener.is_some() { LISTENING_INTERVAL.max(poll_interval) } else { poll_interval };
        let next_look = hints.next_look(last_look, interval);
        match tokio::time::timeout_at(next_look, hear(&mut listener)).await {
            Ok(Some(payload)) => {
                let (teller, letters) = payload.split_once(' ').unwrap_or_default();
                if teller != origin {
                    let has = |letter| letters.contains(letter);
                    publish(&shared, Hint { work: has('w'), wishes: has('c'), ends: has('e') });
                }
            }
            // Something may have been missed while the connection was lost.
            Ok(None) => {
                listener = None;
                publish(&shared, Hint::ALL);
            }
            // Somebody else has looked in the meantime.
            Err(_) if hints.next_look(last_look, interval) > monotonic() => {}
            Err(_) => {
                last_look = monotonic();
                if hints.is_awaited()
                    && let Ok(counters) = database.within(Purpose::Work, look(database)).await
                {
                    publish(&shared, hints.looked(counters, monotonic()));
                }
            }
        }
    }
}

/// Somebody else may have committed something.
pub(super) fn publish(shared: &Shared, hint: Hint) {
    if hint.work {
        shared.floors.heard(monotonic());
    }
    shared.hints.publish(hint);
}

/// The next notification; `None`: the connection is lost.
async fn hear(listener: &mut Option<PgListener>) -> Option<String> {
    match listener {
        Some(listener) => listener.try_recv().await.ok().flatten().map(|heard| heard.payload().to_owned()),
        None => std::future::pending().await,
    }
}

async fn look(database: &Arc<Database>) -> Work<Counters> {
    let mut session = database.reading().await?;
    let row = session.query(READ).fetch_one(session.connection()).await?;
    session.commit().await?;
    counters(&row, 0)
}

/// The counters, from this column of a row on.
pub(super) fn counters(row: &PgRow, column: usize) -> Work<Counters> {
    Ok([row.try_get(column)?, row.try_get(column + 1)?, row.try_get(column + 2)?, 0])
}

/// The channel of a schema's notifications. PostgreSQL has one name space of channels per database.
fn channel(database: &Database) -> String {
    format!("lts {}", database.schema()).chars().take(60).collect()
}
