//! Claiming.

use super::calls::{Calls, PART_ITEMS_MAX, objection};
use super::events;
use super::rows;
use super::script::SCRIPTS;
use crate::clock::Timestamp;
use crate::database::redis::values::{array, items, number, text, texts, time};
use crate::error::Result;
use crate::store::{BATCH_MAX, Candidate, Candidates, CandidatesRequest, Claim, ClaimRequest};
use crate::task::{Name, TaskId};

/// Takes due tasks for a replica. A large claim takes them in parts, each of one script, under one number.
pub(super) async fn claim(calls: &Calls, request: ClaimRequest) -> Result<Claim> {
    request.check()?;
    // More come with the next claim: its time has passed already.
    let limit = request.limit.min(BATCH_MAX);
    let mut claim = Claim::default();
    let mut goes_on = false;
    loop {
        let part = (limit - claim.tasks.len()).min(PART_ITEMS_MAX);
        let command = command(calls, &request, part, goes_on);
        let written = calls.write(&SCRIPTS.claim, &command).await?;
        let [why, again, tasks, expired, next_at] = array(written.body)?;
        objection(request.replica, &why)?;
        let tasks = rows::tasks(tasks)?;
        let taken = tasks.len();
        claim.tasks.extend(tasks);
        for id in texts(expired)? {
            claim.expired.push(TaskId::new(&id)?);
        }
        claim.now = written.now;
        claim.next_at = match text(&next_at)? {
            "" => None,
            _ => Some(Timestamp::from_micros(number(&next_at)?)),
        };
        if number::<u8>(&again)? == 1 {
            continue;
        }
        if taken < part || taken == 0 || claim.tasks.len() >= limit {
            return Ok(claim);
        }
        goes_on = true;
    }
}

fn command(calls: &Calls, request: &ClaimRequest, limit: usize, goes_on: bool) -> redis::Cmd {
    let mut command = calls.command(&SCRIPTS.claim);
    events::add_words(&mut command);
    command.arg(request.replica.to_string()).arg(request.number).arg(limit).arg(u8::from(goes_on));
    for names in [&request.kinds, &request.queues] {
        command.arg(names.len());
        names.iter().for_each(|name| _ = command.arg(name.as_str()));
    }
    match &request.among {
        Some(ids) => {
            command.arg(ids.len());
            ids.iter().for_each(|id| id.with_str(|id| _ = command.arg(id)));
        }
        None => _ = command.arg(""),
    }
    command
}

/// What could be claimed next.
pub(super) async fn candidates(calls: &Calls, request: &CandidatesRequest) -> Result<Candidates> {
    let mut command = calls.command(&SCRIPTS.candidates);
    command.arg(request.per_lane.min(BATCH_MAX)).arg(request.kinds.len());
    for name in request.kinds.iter().chain(&request.queues) {
        command.arg(name.as_str());
    }
    let [now, lanes] = array(calls.read(&SCRIPTS.candidates, &command).await?)?;
    let mut tasks = Vec::new();
    for lane in items(lanes)? {
        let [queue, kind, found] = array(lane)?;
        let (queue, kind) = (Name::new(text(&queue)?)?, Name::new(text(&kind)?)?);
        for one in items(found)?.chunks_exact(4) {
            tasks.push(Candidate {
                id: TaskId::new(text(&one[0])?)?,
                queue: queue.clone(),
                kind: kind.clone(),
                priority: number(&one[1])?,
                run_at: time(&one[2])?,
                insertion: number(&one[3])?,
            });
        }
    }
    tasks.sort_unstable_by_key(Candidate::rank);
    Ok(Candidates { tasks, now: time(&now)? })
}
