//! The small numbers that stand for names in the rows: lanes and replicas.
//!
//! Rows of both tables are never changed in these columns nor removed, so that what was once read stays true.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use super::error::unreadable;
use crate::error::Result;
use crate::task::{Name, ReplicaId};

/// What is known already, per connection.
#[derive(Debug, Default)]
pub(super) struct Names {
    lanes: HashMap<Name, HashMap<Name, i64>>,
    lanes_by_number: HashMap<i64, Lane>,
    replicas: HashMap<i64, ReplicaId>,
}

/// A queue and a kind.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) queue: Name,
    pub(super) kind: Name,
}

impl Names {
    /// Forgets everything: after a rollback some of it may not exist.
    pub(super) fn forget(&mut self) {
        *self = Names::default();
    }

    /// The number of a lane, made if there is none yet.
    pub(super) fn lane_number(&mut self, connection: &Connection, queue: &Name, kind: &Name) -> Result<i64> {
        if let Some(number) = self.lanes.get(queue).and_then(|kinds| kinds.get(kind)) {
            return Ok(*number);
        }
        let found = connection
            .prepare_cached("SELECT id FROM lanes WHERE queue = ?1 AND kind = ?2")?
            .query_row([queue.as_str(), kind.as_str()], |row| row.get(0))
            .optional()?;
        let number = match found {
            Some(number) => number,
            None => connection
                .prepare_cached("INSERT INTO lanes (queue, kind) VALUES (?1, ?2)")?
                .insert([queue.as_str(), kind.as_str()])?,
        };
        self.keep_lane(number, Lane { queue: queue.clone(), kind: kind.clone() });
        Ok(number)
    }

    /// The lane of a number.
    pub(super) fn lane(&mut self, connection: &Connection, number: i64) -> Result<&Lane> {
        if !self.lanes_by_number.contains_key(&number) {
            let (queue, kind) = connection
                .prepare_cached("SELECT queue, kind FROM lanes WHERE id = ?1")?
                .query_row([number], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            self.keep_lane(number, Lane { queue: Name::new(&queue)?, kind: Name::new(&kind)? });
        }
        self.lanes_by_number.get(&number).ok_or_else(|| unreadable("lane", number))
    }

    fn keep_lane(&mut self, number: i64, lane: Lane) {
        self.lanes.entry(lane.queue.clone()).or_default().insert(lane.kind.clone(), number);
        self.lanes_by_number.insert(number, lane);
    }

    /// The replica of a number.
    pub(super) fn replica(&mut self, connection: &Connection, number: i64) -> Result<ReplicaId> {
        if let Some(id) = self.replicas.get(&number) {
            return Ok(*id);
        }
        let id: String = connection
            .prepare_cached("SELECT id FROM replicas WHERE key = ?1")?
            .query_row([number], |row| row.get(0))?;
        let id = id.parse()?;
        self.replicas.insert(number, id);
        Ok(id)
    }

    /// The number of a replica that has registered.
    pub(super) fn replica_number(&mut self, connection: &Connection, id: ReplicaId) -> Result<i64> {
        // Few replicas ever own tasks here: looking through them is quicker than a second map.
        if let Some((number, _)) = self.replicas.iter().find(|(_, known)| **known == id) {
            return Ok(*number);
        }
        let number = connection
            .prepare_cached("SELECT key FROM replicas WHERE id = ?1")?
            .query_row([id.to_string()], |row| row.get(0))?;
        self.replicas.insert(number, id);
        Ok(number)
    }
}
