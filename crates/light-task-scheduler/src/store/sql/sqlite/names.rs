//! The small numbers that stand for names in the rows: lanes and replicas; and the salt of the ids.
//!
//! What is read here is never changed nor removed, so that what was once read stays true.

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
    empty_claims: HashMap<i64, u64>,
    salt: Option<i64>,
}

/// A queue and a kind.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) queue: Name,
    pub(super) kind: Name,
}

impl Names {
    /// Forgets what was read: after a rollback some of it may not exist.
    pub(super) fn forget(&mut self) {
        *self = Names { empty_claims: std::mem::take(&mut self.empty_claims), ..Names::default() };
    }

    /// The number of a lane, if it ever had a task.
    pub(super) fn find_lane(&mut self, connection: &Connection, queue: &Name, kind: &Name) -> Result<Option<i64>> {
        if let Some(number) = self.lanes.get(queue).and_then(|kinds| kinds.get(kind)) {
            return Ok(Some(*number));
        }
        let found = connection
            .prepare_cached("SELECT id FROM lanes WHERE queue = ?1 AND kind = ?2")?
            .query_row([queue.as_str(), kind.as_str()], |row| row.get(0))
            .optional()?;
        if let Some(number) = found {
            self.keep_lane(number, Lane { queue: queue.clone(), kind: kind.clone() });
        }
        Ok(found)
    }

    /// Makes a lane that is about to have its first task.
    pub(super) fn make_lane(&mut self, connection: &Connection, queue: &Name, kind: &Name) -> Result<i64> {
        let number = connection
            .prepare_cached("INSERT INTO lanes (queue, kind) VALUES (?1, ?2)")?
            .insert([queue.as_str(), kind.as_str()])?;
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

    /// Notes that a claim of a replica took nothing. Kept in memory only, to save a commit: a replica claims
    /// through one handle, and one that has lost its memory is another replica.
    pub(super) fn note_empty_claim(&mut self, replica: i64, number: u64) {
        self.empty_claims.insert(replica, number);
    }

    /// The number of the last claim of a replica that took nothing.
    pub(super) fn last_empty_claim(&self, replica: i64) -> u64 {
        self.empty_claims.get(&replica).copied().unwrap_or(0)
    }

    /// The salt of the ids that are made here.
    pub(super) fn salt(&mut self, connection: &Connection) -> Result<i64> {
        if let Some(salt) = self.salt {
            return Ok(salt);
        }
        let salt = connection.prepare_cached("SELECT salt FROM meta")?.query_row([], |row| row.get(0))?;
        self.salt = Some(salt);
        Ok(salt)
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
