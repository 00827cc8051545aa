//! Moving tasks and reading them.

use super::calls::{Calls, PART_ITEMS_MAX, Part};
use super::events;
use super::rows;
use super::script::SCRIPTS;
use crate::database::redis::error::unreadable;
use crate::database::redis::values::{array, items, number, text};
use crate::error::Result;
use crate::state::Command;
use crate::store::{Answer, Change, Cursor, PAGE_MAX, Page, Report, TaskQuery, check_batch};
use crate::task::{Task, TaskId};

/// A page ends early once its payloads and outputs have this many bytes (64 MiB).
const PAGE_BYTES_MAX: usize = 64 << 20;
/// The same for the part of it that one script reads (4 MiB).
const PAGE_PART_BYTES: usize = 4 << 20;

/// Applies what owners report.
pub(super) async fn apply(calls: &Calls, changes: &[Change]) -> Result<Vec<Answer>> {
    check_batch(changes.len())?;
    let mut answers = Vec::with_capacity(changes.len());
    while answers.len() < changes.len() {
        let mut part = Part::default();
        for change in &changes[answers.len()..] {
            part.add(events::size(&change.event));
            if part.is_full() {
                break;
            }
        }
        let mut command = calls.command(&SCRIPTS.apply);
        events::add_words(&mut command);
        events::add_apply_words(&mut command);
        for group in changes[answers.len()..][..part.items].chunk_by(events::are_alike) {
            events::add_group(&mut command, group)?;
        }
        let told = calls.write(&SCRIPTS.apply, &command).await?.body;
        answers.extend(events::answers(&told, part.items, events::answer)?);
    }
    Ok(answers)
}

/// Applies what operators wish.
pub(super) async fn command(calls: &Calls, commands: &[(TaskId, Command)]) -> Result<Vec<Answer>> {
    check_batch(commands.len())?;
    let mut answers = Vec::with_capacity(commands.len());
    for wishes in commands.chunks(PART_ITEMS_MAX) {
        let mut command = calls.command(&SCRIPTS.command);
        events::add_words(&mut command);
        for (id, wish) in wishes {
            events::add_command(&mut command, id, *wish);
        }
        let told = calls.write(&SCRIPTS.command, &command).await?.body;
        answers.extend(events::answers(&told, wishes.len(), events::answer)?);
    }
    Ok(answers)
}

/// Keeps what executions push.
pub(super) async fn post_reports(calls: &Calls, reports: &[Report]) -> Result<Vec<bool>> {
    check_batch(reports.len())?;
    let mut answers = Vec::with_capacity(reports.len());
    while answers.len() < reports.len() {
        let (mut part, mut command) = (Part::default(), calls.command(&SCRIPTS.report));
        for report in &reports[answers.len()..] {
            part.add(events::add_report(&mut command, report)?);
            if part.is_full() {
                break;
            }
        }
        let told = items(calls.write(&SCRIPTS.report, &command).await?.body)?;
        if told.len() != part.items {
            return Err(unreadable("an answer"));
        }
        for taken in &told {
            answers.push(number::<u8>(taken)? == 1);
        }
    }
    Ok(answers)
}

/// Reads tasks by id.
pub(super) async fn get(calls: &Calls, ids: &[TaskId]) -> Result<Vec<Option<Task>>> {
    check_batch(ids.len())?;
    let mut found = Vec::with_capacity(ids.len());
    for ids in ids.chunks(PART_ITEMS_MAX) {
        let mut command = calls.command(&SCRIPTS.get);
        ids.iter().for_each(|id| id.with_str(|id| _ = command.arg(id)));
        found.extend(rows::found(calls.read(&SCRIPTS.get, &command).await?)?);
    }
    Ok(found)
}

/// Lists tasks, newest first.
pub(super) async fn list(calls: &Calls, query: &TaskQuery) -> Result<Page> {
    let limit = if query.limit == 0 { PAGE_MAX } else { query.limit.min(PAGE_MAX) };
    let mut before = query.cursor.map(|cursor| cursor.insertion().to_string()).unwrap_or_default();
    let (mut page, mut bytes) = (Page::default(), 0);
    loop {
        let command = list_command(calls, query, &before, limit - page.tasks.len());
        let [go_on, found] = array(calls.read(&SCRIPTS.list, &command).await?)?;
        let found = rows::tasks(found)?;
        bytes += found.iter().map(bytes_of).sum::<usize>();
        page.tasks.extend(found);
        before = text(&go_on)?.to_owned();
        if before.is_empty() {
            return Ok(page);
        }
        if page.tasks.len() >= limit || bytes > PAGE_BYTES_MAX {
            page.next = Some(Cursor::at(number(&go_on)?));
            return Ok(page);
        }
    }
}

fn bytes_of(task: &Task) -> usize {
    task.spec.payload.len() + task.record.output().map_or(0, |output| output.len())
}

fn list_command(calls: &Calls, query: &TaskQuery, before: &str, most: usize) -> redis::Cmd {
    let TaskQuery { states, queue, kind, labels, created_from, created_before, id_prefix, .. } = query;
    let mut command = calls.command(&SCRIPTS.list);
    command.arg(before).arg(most).arg(PAGE_PART_BYTES);
    for name in [queue, kind] {
        command.arg(name.as_ref().map_or("", |name| name.as_str()));
    }
    for time in [created_from, created_before] {
        command.arg(time.map(|time| time.as_micros().to_string()).unwrap_or_default());
    }
    command.arg(id_prefix.as_deref().unwrap_or_default()).arg(states.len());
    states.iter().for_each(|state| _ = command.arg(*state as u8));
    for (name, value) in labels {
        command.arg(name.as_str()).arg(value);
    }
    command
}
