//! Reading and housekeeping: pages, counts, queues, retention.

use super::data::{Data, ended_live};
use super::rows::{Row, Slot};
use crate::error::Result;
use crate::state::{Command, Event};
use crate::store::{Cursor, Page, QueueCounts, QueueSettings, Sweep, SweepRequest, TaskQuery};
use crate::task::Name;

/// How many rows a listing looks at before it lets others have the lock.
const SCAN_ROWS: usize = 4_096;

impl Data {
    /// Adds what it finds to the page, and answers below which insertion to go on, unless the page is
    /// complete.
    pub(super) fn scan(&self, query: &TaskQuery, limit: usize, below: u64, page: &mut Page) -> Option<u64> {
        for (looked, (seq, slot)) in self.inserted.below(below).enumerate() {
            if looked == SCAN_ROWS {
                return Some(seq + 1);
            }
            if !self.rows.is_live(slot, seq) || !self.matches(&self.rows[slot], query) {
                continue;
            }
            if page.tasks.len() == limit {
                // There is one more: `next` stays at the last one of this page.
                return None;
            }
            page.tasks.push(self.task(slot));
            page.next = Some(Cursor::at(seq));
        }
        page.next = None;
        None
    }

    fn matches(&self, row: &Row, query: &TaskQuery) -> bool {
        let is_labelled = |(name, value): &(Name, String)| {
            row.options.as_ref().is_some_and(|options| options.labels.get(name) == Some(value))
        };
        (query.states.is_empty() || query.states.contains(&row.record.state))
            && query.queue.as_ref().is_none_or(|queue| *queue == self.lanes.queue_of(row.lane).name)
            && query.kind.as_ref().is_none_or(|kind| kind == self.lanes.kind_of(row.lane))
            && query.labels.iter().all(is_labelled)
            && query.created_from.is_none_or(|from| row.created_at >= from)
            && query.created_before.is_none_or(|before| row.created_at < before)
            && query.id_prefix.as_ref().is_none_or(|prefix| row.id.with_str(|id| id.starts_with(prefix)))
    }

    pub(super) fn counts(&mut self) -> Vec<QueueCounts> {
        let mut counts: Vec<QueueCounts> = (0..self.lanes.queues.len())
            .map(|number| {
                let scheduled = self.lanes.delayed(number, self.now);
                let queue = &self.lanes.queues[number];
                QueueCounts { queue: queue.name.clone(), by_state: queue.by_state, scheduled }
            })
            .collect();
        counts.sort_by(|a, b| a.queue.cmp(&b.queue));
        counts
    }

    pub(super) fn set_queue(&mut self, queue: &Name, settings: QueueSettings) -> Result<()> {
        settings.check()?;
        let number = self.lanes.queue(queue)?;
        self.lanes.queues[number as usize].settings = settings;
        self.changes.work += 1;
        self.op_seq += 1;
        Ok(())
    }

    pub(super) fn queues(&self) -> Vec<(Name, QueueSettings)> {
        let mut queues: Vec<_> = self.lanes.queues.iter().map(|queue| (queue.name.clone(), queue.settings)).collect();
        queues.sort_by(|a, b| a.0.cmp(&b.0));
        queues
    }

    pub(super) fn sweep(&mut self, request: &SweepRequest) -> Sweep {
        self.tombstones.expire(self.now);
        for key in &request.confirmed {
            if self.garbage.remove(key) {
                self.bytes -= key.len() as u64;
            }
        }
        let mut removed = 0;
        for slot in self.retired(request) {
            let deleted = self.transition(slot, Event::Command(Command::Delete));
            removed += u64::from(deleted.is_ok());
        }
        self.ended.trim(|key, slot| ended_live(&self.rows, key, slot));
        self.inserted.trim(|seq, slot| self.rows.is_live(slot, seq));
        Sweep { removed, garbage: self.garbage.iter().take(request.limit).cloned().collect() }
    }

    /// The ended tasks that the request asks to remove, oldest end first.
    fn retired(&self, request: &SweepRequest) -> Vec<Slot> {
        let Some(older_than) = request.older_than else { return Vec::new() };
        let is_exempt = |row: &Row| {
            let options = row.options.as_ref();
            let label = request.except_label.as_ref();
            options.zip(label).is_some_and(|(options, label)| options.labels.contains_key(label))
        };
        self.ended
            .iter()
            .take_while(|((at, _), _)| self.now.since(*at) > older_than)
            .filter(|(key, slot)| ended_live(&self.rows, *key, *slot))
            .map(|(_, slot)| slot)
            .filter(|slot| request.states.contains(&self.rows[*slot].record.state) && !is_exempt(&self.rows[*slot]))
            .take(request.limit)
            .collect()
    }
}
