//! The table `lanes`.

use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::tx::{Tx, text};
use crate::database::mysql::Work;
use crate::database::mysql::sql::parts;
use crate::store::sql::codec::unreadable;
use crate::store::sql::lanes::Lane;
use crate::task::Name;

const ALL: &str = "SELECT id, queue, kind FROM {p}lanes ORDER BY id";
const MAKE: &str = "INSERT INTO {p}lanes (queue, kind) VALUES {*(?, ?)*} ON DUPLICATE KEY UPDATE id = id";
// A locking read: also in a transaction that began before another made one of them.
const FIND: &str = "SELECT id, queue, kind FROM {p}lanes WHERE (queue, kind) IN ({*(?, ?)*}) LOCK IN SHARE MODE";

/// The lane of a number that a row has.
pub(super) async fn lane(tx: &mut Tx<'_>, number: i32) -> Work<Lane> {
    if let Some(lane) = tx.shared.lanes.get(number) {
        return Ok(lane);
    }
    // Others have made some: read them all, there are few.
    let all = tx.query(ALL).fetch_all(tx.connection()).await?;
    let lanes = all.iter().map(read).collect::<Work<Vec<_>>>()?;
    tx.shared.lanes.keep(lanes);
    tx.shared.lanes.get(number).ok_or_else(|| unreadable("lane of a task", number).into())
}

/// The numbers of these lanes, which are made where there are none. Not kept before the commit.
pub(super) async fn make(tx: &mut Tx<'_>, lanes: &[Lane]) -> Work<Vec<(i32, Lane)>> {
    // In one order everywhere, so that two that make the same do not wait for each other in a circle.
    let mut sorted: Vec<&Lane> = lanes.iter().collect();
    sorted.sort_by(|a, b| (&a.queue, &a.kind).cmp(&(&b.queue, &b.kind)));
    let mut found = Vec::with_capacity(lanes.len());
    for part in parts(&sorted, |_| 0) {
        let (mut make, mut find) = (tx.rows(MAKE, part.len()), tx.rows(FIND, part.len()));
        for Lane { queue, kind } in part {
            make = make.bind(queue.as_str().as_bytes()).bind(kind.as_str().as_bytes());
            find = find.bind(queue.as_str().as_bytes()).bind(kind.as_str().as_bytes());
        }
        make.execute(tx.connection()).await?;
        found.append(&mut find.fetch_all(tx.connection()).await?);
    }
    found.iter().map(read).collect()
}

fn read(row: &MySqlRow) -> Work<(i32, Lane)> {
    let (queue, kind) = (Name::new(text(row.try_get(1)?)?)?, Name::new(text(row.try_get(2)?)?)?);
    Ok((row.try_get(0)?, Lane { queue, kind }))
}
