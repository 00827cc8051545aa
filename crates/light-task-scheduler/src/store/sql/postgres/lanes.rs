//! The table `lanes`.

use sqlx::Row;

use super::tx::Tx;
use crate::database::postgres::Work;
use crate::store::sql::codec::unreadable;
use crate::store::sql::lanes::Lane;
use crate::task::Name;

const ALL: &str = "SELECT id, queue, kind FROM {s}.lanes WHERE id > $1 ORDER BY id";
const MAKE: &str = "INSERT INTO {s}.lanes (queue, kind) SELECT * FROM unnest($1::text[], $2::text[])
    ON CONFLICT DO NOTHING";
const FIND: &str = "SELECT id, queue, kind FROM {s}.lanes
    JOIN unnest($1::text[], $2::text[]) AS asked (queue, kind) USING (queue, kind)";

/// The lane of a number that a row has.
pub(super) async fn lane(tx: &mut Tx<'_>, number: i32) -> Work<Lane> {
    if let Some(lane) = tx.shared.lanes.get(number) {
        return Ok(lane);
    }
    // Others have made some: read them all, there are few.
    let all = tx.query(ALL).bind(0).fetch_all(tx.connection()).await?;
    let lanes = all.iter().map(read).collect::<Work<Vec<_>>>()?;
    tx.shared.lanes.keep(lanes);
    tx.shared.lanes.get(number).ok_or_else(|| unreadable("lane of a task", number).into())
}

/// The numbers of these lanes, which are made where there are none. Not kept before the commit.
pub(super) async fn make(tx: &mut Tx<'_>, lanes: &[Lane]) -> Work<Vec<(i32, Lane)>> {
    // In one order everywhere, so that two that make the same do not wait for each other in a circle.
    let mut sorted: Vec<&Lane> = lanes.iter().collect();
    sorted.sort_by(|a, b| (&a.queue, &a.kind).cmp(&(&b.queue, &b.kind)));
    let (queues, kinds): (Vec<&str>, Vec<&str>) =
        sorted.iter().map(|lane| (lane.queue.as_str(), lane.kind.as_str())).unzip();
    tx.query(MAKE).bind(&queues).bind(&kinds).execute(tx.connection()).await?;
    let found = tx.query(FIND).bind(&queues).bind(&kinds).fetch_all(tx.connection()).await?;
    found.iter().map(read).collect()
}

fn read(row: &sqlx::postgres::PgRow) -> Work<(i32, Lane)> {
    let (queue, kind): (&str, &str) = (row.try_get(1)?, row.try_get(2)?);
    Ok((row.try_get(0)?, Lane { queue: Name::new(queue)?, kind: Name::new(kind)? }))
}
