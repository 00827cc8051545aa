//! Counts, queues, housekeeping, and the check of the indexes.

use super::calls::{Calls, PART_ITEMS_MAX};
use super::script::SCRIPTS;
use crate::clock::micros;
use crate::database::redis::error::unreadable;
use crate::database::redis::values::{array, items, number, text, texts};
use crate::error::{Error, Result};
use crate::rate::RateLimit;
use crate::store::{BATCH_MAX, QueueCounts, QueueSettings, Sweep, SweepRequest};
use crate::task::{Name, State};

/// The largest limit that is handed to a script: beyond some 15 digits its numbers are no integers.
const LIMIT_MAX: u64 = 1 << 40;

/// How many tasks each queue has in each state.
pub(super) async fn counts(calls: &Calls) -> Result<Vec<QueueCounts>> {
    let found = calls.read(&SCRIPTS.counts, &calls.command(&SCRIPTS.counts)).await?;
    let mut counts = Vec::new();
    for row in items(found)? {
        let row = items(row)?;
        let [queue, by_state @ .., scheduled] = row.as_slice() else { return Err(unreadable("the counts")) };
        let mut count = QueueCounts {
            queue: Name::new(text(queue)?)?,
            by_state: [0; State::ALL.len()],
            scheduled: number(scheduled)?,
        };
        for (place, value) in count.by_state.iter_mut().zip(by_state) {
            *place = number(value)?;
        }
        counts.push(count);
    }
    counts.sort_by(|a, b| a.queue.cmp(&b.queue));
    Ok(counts)
}

/// Creates a queue or replaces its settings.
pub(super) async fn set_queue(calls: &Calls, queue: &Name, settings: &QueueSettings) -> Result<()> {
    settings.check()?;
    let json = serde_json::to_string(settings).map_err(|e| Error::internal(format!("settings as JSON: {e}")))?;
    let or_nothing = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    let mut command = calls.command(&SCRIPTS.queue);
    command.arg(queue.as_str()).arg(json).arg(or_nothing(settings.concurrency.map(i64::from)));
    command.arg(or_nothing(settings.rate.as_ref().map(RateLimit::interval)));
    command.arg(or_nothing(settings.rate.as_ref().map(RateLimit::window)));
    command.arg(u8::from(settings.paused));
    calls.write(&SCRIPTS.queue, &command).await.map(drop)
}

/// Every queue that has settings or has ever had a task, by name.
pub(super) async fn queues(calls: &Calls) -> Result<Vec<(Name, QueueSettings)>> {
    let found = texts(calls.read(&SCRIPTS.queues, &calls.command(&SCRIPTS.queues)).await?)?;
    let mut queues = Vec::new();
    for pair in found.chunks_exact(2) {
        let settings = match pair[1].as_str() {
            "" => QueueSettings::default(),
            json => serde_json::from_str(json).map_err(|e| unreadable("the settings of a queue").with_source(e))?,
        };
        queues.push((Name::new(&pair[0])?, settings));
    }
    queues.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(queues)
}

/// Housekeeping.
pub(super) async fn sweep(calls: &Calls, request: &SweepRequest) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    let limit = u64::try_from(request.limit).unwrap_or(u64::MAX).min(LIMIT_MAX);
    if request.older_than.is_some() {
        for state in State::ALL.into_iter().filter(|state| state.is_terminal() && request.states.contains(state)) {
            sweep.removed += remove(calls, request, state, limit - sweep.removed).await?;
        }
    }
    let mut confirmed = request.confirmed.chunks(PART_ITEMS_MAX).peekable();
    loop {
        let keys = confirmed.next().unwrap_or_default();
        let mut command = calls.command(&SCRIPTS.sweep);
        command.arg("garbage").arg(request.limit.min(BATCH_MAX));
        keys.iter().for_each(|key| _ = command.arg(key));
        let told = texts(calls.write(&SCRIPTS.sweep, &command).await?.body)?;
        if confirmed.peek().is_none() {
            sweep.garbage = told;
            return Ok(sweep);
        }
    }
}

/// Removes up to `limit` tasks of one state.
async fn remove(calls: &Calls, request: &SweepRequest, state: State, limit: u64) -> Result<u64> {
    let age = micros(request.older_than.unwrap_or_default());
    let label = request.except_label.as_ref().map_or("", |label| label.as_str());
    let (mut removed, mut pass_over) = (0, 0);
    while removed < limit {
        let mut command = calls.command(&SCRIPTS.sweep);
        command.arg("tasks").arg(state as u8).arg(age).arg(label).arg(pass_over).arg(limit - removed);
        let [now_removed, passed, more] = array(calls.write(&SCRIPTS.sweep, &command).await?.body)?;
        removed += number::<u64>(&now_removed)?;
        pass_over = number::<u64>(&passed)?;
        if number::<u8>(&more)? == 0 {
            break;
        }
    }
    Ok(removed)
}

/// Looks for contradictions between tasks and indexes.
pub(super) async fn verify(calls: &Calls) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for what in ["tasks", "run", "spec", "res", "sizes"] {
        let mut from = "0".to_owned();
        while !from.is_empty() {
            let mut command = calls.command(&SCRIPTS.verify);
            command.arg(what).arg(&from);
            let [go_on, found] = array(calls.read(&SCRIPTS.verify, &command).await?)?;
            problems.extend(texts(found)?);
            from = text(&go_on)?.to_owned();
        }
    }
    Ok(problems)
}

/// Removes everything of the namespace.
pub(super) async fn erase(calls: &Calls) -> Result<()> {
    while number::<u8>(&calls.read(&SCRIPTS.erase, &calls.command(&SCRIPTS.erase)).await?)? == 1 {}
    Ok(())
}
