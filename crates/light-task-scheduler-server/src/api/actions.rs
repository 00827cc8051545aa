//! What operators wish of many tasks at once, and what failed alike.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use light_task_scheduler::state::Command;
use light_task_scheduler::store::{Answer, PAGE_MAX};
use light_task_scheduler::{FailureKind, Name, State as TaskState, Task, TaskId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::access::Caller;
use super::body::{Body, Params};
use super::problem::{Problem, Result};
use super::query::{Filter, cursor_text, parse_cursor};
use super::tasks::Rescheduling;

/// How many tasks one request moves if nothing is asked, and at most.
const ACTED_ON_DEFAULT: usize = 10_000;
const ACTED_ON_MAX: usize = 100_000;
/// How many failed tasks are looked at to find what failed alike.
const FAILURES_LOOKED_AT: usize = 1_000;
/// How much of a message tells apart two failures, in letters.
const FINGERPRINT_LETTERS: usize = 200;

/// What is wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// Stop them.
    Cancel,
    /// Let held ones run.
    Start,
    /// Run ended ones again.
    Retry,
    /// Remove held and ended ones, and their logs.
    Delete,
    /// Let held and waiting ones run at another time, or before others: as `reschedule` says.
    Reschedule,
}

impl Action {
    /// Whether it would move a task as it stands.
    fn concerns(self, task: &Task) -> bool {
        let record = &task.record;
        match self {
            Action::Cancel => !record.state.is_terminal() && !record.cancel_requested,
            Action::Start => record.state == TaskState::Held,
            Action::Retry => record.state.is_terminal(),
            Action::Delete => record.state.is_terminal() || record.state == TaskState::Held,
            Action::Reschedule => matches!(record.state, TaskState::Held | TaskState::Waiting),
        }
    }
}

/// A wish for many tasks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    /// What.
    action: Action,
    /// With the action `reschedule`, and only with it: to when, and with which priority.
    #[serde(default)]
    reschedule: Option<Rescheduling>,
    /// Which: a query, as in the list. Either this or `ids`; an empty query means all, and must be given as such.
    #[serde(default)]
    q: Option<String>,
    /// Which: their ids.
    #[serde(default)]
    ids: Option<Vec<String>>,
    /// Only counts them.
    #[serde(default)]
    dry_run: bool,
    /// At most so many, 1 to 100000. Default 10000.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100_000)]
    limit: Option<usize>,
    /// Where the last request stopped: its `next`.
    #[serde(default)]
    cursor: Option<String>,
}

impl Wish {
    fn deed(&self, now: Timestamp) -> Result<Deed> {
        let command = match (self.action, self.reschedule) {
            (Action::Reschedule, Some(to)) => to.command(now)?,
            (Action::Reschedule, None) => {
                return Err(Problem::invalid("reschedule: give run_at, delay or priority in it"));
            }
            (_, Some(_)) => return Err(Problem::invalid("reschedule: only the action reschedule takes it")),
            (Action::Cancel, None) => Command::Cancel,
            (Action::Start, None) => Command::Start,
            (Action::Retry, None) => Command::Requeue,
            (Action::Delete, None) => Command::Delete,
        };
        Ok(Deed { action: self.action, command, dry_run: self.dry_run })
    }
}

/// What is done with each task.
#[derive(Debug, Clone, Copy)]
struct Deed {
    action: Action,
    command: Command,
    dry_run: bool,
}

/// What became of a wish.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Acted {
    /// How many tasks are meant and could be moved.
    matched: usize,
    /// How many were moved.
    changed: usize,
    /// How many could not, or had moved meanwhile.
    skipped: usize,
    /// Where to go on; none: those were all.
    next: Option<String>,
    /// Nothing was moved, only counted.
    dry_run: bool,
}

/// Does one thing with many tasks: those of a query, or those named. With `dry_run` it only counts them.
#[utoipa::path(post, operation_id = "act_on_tasks", path = "/api/v1/task-actions", tag = "tasks", request_body = Wish,
    responses(
        (status = 200, body = Acted),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn act(
    State(api): State<Api>,
    caller: Caller,
    Body(wish): Body<Wish>,
) -> Result<Json<Acted>, Response> {
    let limit = wish.limit.unwrap_or(ACTED_ON_DEFAULT);
    if !(1..=ACTED_ON_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit: {limit} is not 1 to {ACTED_ON_MAX}")).into());
    }
    let deed = wish.deed(api.now())?;
    match (&wish.q, &wish.ids) {
        (Some(query), None) => {
            let filter = Filter::parse(query, &caller, api.now())?;
            let from = wish.cursor.as_deref().map(parse_cursor).transpose()?;
            Ok(Json(deed.over(&api, &filter, from, limit).await?))
        }
        (None, Some(ids)) => Ok(Json(on_named(&api, &caller, deed, ids).await?)),
        _ => Err(Problem::invalid("give either q or ids; an empty q means all tasks").into()),
    }
}

impl Deed {
    /// Does it with so many tasks of a filter.
    async fn over(
        self,
        api: &Api,
        filter: &Filter,
        from: Option<light_task_scheduler::store::Cursor>,
        limit: usize,
    ) -> Result<Acted> {
        let mut acted = Acted { dry_run: self.dry_run, ..Acted::default() };
        let mut at = from;
        loop {
            let wanted = PAGE_MAX.min(limit - acted.matched);
            let found = filter.find(&**api.store(), at, wanted, api.now()).await?;
            at = found.next;
            acted.take(api, self, found.tasks).await?;
            if at.is_none() || acted.matched >= limit {
                break;
            }
        }
        acted.next = at.map(cursor_text);
        Ok(acted)
    }
}

async fn on_named(api: &Api, caller: &Caller, deed: Deed, ids: &[String]) -> Result<Acted> {
    if ids.len() > PAGE_MAX {
        return Err(Problem::invalid(format!("{} ids, more than {PAGE_MAX}; send them in parts", ids.len())));
    }
    let known: Vec<TaskId> = ids.iter().filter_map(|id| TaskId::new(id).ok()).collect();
    let tasks = api.store().get(&known).await?.into_iter().flatten();
    let tasks: Vec<Task> = tasks.filter(|task| caller.may_use(&task.spec.queue)).collect();
    let mut acted = Acted { dry_run: deed.dry_run, skipped: ids.len() - tasks.len(), ..Acted::default() };
    acted.take(api, deed, tasks).await?;
    Ok(acted)
}

impl Acted {
    async fn take(&mut self, api: &Api, deed: Deed, tasks: Vec<Task>) -> Result<()> {
        let Deed { action, command, dry_run } = deed;
        let all = tasks.len();
        let concerned: Vec<TaskId> =
            tasks.iter().filter(|task| action.concerns(task)).map(|task| task.id.clone()).collect();
        self.matched += concerned.len();
        self.skipped += all - concerned.len();
        if dry_run || concerned.is_empty() {
            return Ok(());
        }
        let commands = concerned.iter().map(|id| (id.clone(), command)).collect();
        let answers = api.store().command(commands).await?;
        for (id, answer) in concerned.iter().zip(answers) {
            match answer {
                Answer::Applied(_) => self.changed += 1,
                _ => self.skipped += 1,
            }
            if action == Action::Delete && matches!(answer, Answer::Applied(_)) {
                api.logs().delete(id).await?;
            }
        }
        Ok(())
    }
}

/// What a purge did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Purged {
    /// How many tasks were removed.
    deleted: usize,
    /// There are more: repeat it.
    more: bool,
}

/// Removes the tasks of a queue that have not begun: held, waiting, and those that wait to be tried again.
#[utoipa::path(post, operation_id = "purge_queue", path = "/api/v1/queues/{name}/purge", tag = "queues", params(("name" = String, Path)),
    responses(
        (status = 200, body = Purged),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn purge(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Purged>, Response> {
    let queue = Name::new(&name).map_err(Box::<Problem>::from)?;
    let mut filter = Filter::parse("state:held,waiting", &caller, api.now())?;
    caller.check_queue(&queue)?;
    filter.stored.queue = Some(queue);
    let mut deleted = 0;
    let mut at = None;
    loop {
        let found = filter.find(&**api.store(), at, PAGE_MAX, api.now()).await?;
        at = found.next;
        let mut cancelled = Acted::default();
        let ids: Vec<TaskId> = found.tasks.iter().map(|task| task.id.clone()).collect();
        let cancel = Deed { action: Action::Cancel, command: Command::Cancel, dry_run: false };
        cancelled.take(&api, cancel, found.tasks).await?;
        // What has begun meanwhile is cancelled too, and stays until it is dead.
        let tasks = api.store().get(&ids).await.map_err(Box::<Problem>::from)?.into_iter().flatten();
        let mut removed = Acted::default();
        let delete = Deed { action: Action::Delete, command: Command::Delete, dry_run: false };
        removed.take(&api, delete, tasks.collect()).await?;
        deleted += removed.changed;
        if at.is_none() || deleted >= ACTED_ON_MAX {
            return Ok(Json(Purged { deleted, more: at.is_some() }));
        }
    }
}

/// Which failures.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FailureParams {
    /// A query, as in the list; only failed tasks are looked at.
    #[serde(default)]
    q: String,
}

/// Tasks that failed alike.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FailureGroup {
    /// Names the group: the message without what differs from task to task.
    fingerprint: String,
    /// The kind of the failures.
    #[schema(value_type = String)]
    kind: FailureKind,
    /// The message of the last one.
    message: String,
    /// How many.
    count: usize,
    /// In which queues.
    queues: BTreeSet<String>,
    /// When the first one failed.
    #[schema(value_type = Option<String>, format = DateTime)]
    first_at: Option<Timestamp>,
    /// When the last one failed.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_at: Option<Timestamp>,
    /// The last one.
    sample_id: String,
}

/// What failed alike.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failures {
    /// The largest group first.
    groups: Vec<FailureGroup>,
    /// How many failed tasks were looked at, the newest.
    looked_at: usize,
}

/// The newest failed tasks, gathered by what went wrong.
#[utoipa::path(get, operation_id = "list_failures", path = "/api/v1/failures", tag = "tasks", params(FailureParams),
    responses(
        (status = 200, body = Failures),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn failures(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<FailureParams>,
) -> Result<Json<Failures>, Response> {
    let mut filter = Filter::parse(&params.q, &caller, api.now())?;
    filter.stored.states = vec![TaskState::Failed];
    let found = filter.find(&**api.store(), None, FAILURES_LOOKED_AT, api.now()).await?;
    let looked_at = found.tasks.len();
    let mut groups: BTreeMap<(String, String), FailureGroup> = BTreeMap::new();
    for task in found.tasks {
        let Some(failure) = task.record.failure() else { continue };
        let at = task.record.finished_at;
        let fingerprint = fingerprint(&failure.message);
        let key = (format!("{:?}", failure.kind), fingerprint.clone());
        let group = groups.entry(key).or_insert_with(|| FailureGroup {
            fingerprint,
            kind: failure.kind,
            message: failure.message.clone(),
            count: 0,
            queues: BTreeSet::new(),
            first_at: at,
            last_at: at,
            sample_id: task.id.to_string(),
        });
        group.count += 1;
        group.queues.insert(task.spec.queue.to_string());
        group.first_at = group.first_at.min(at);
        if at > group.last_at {
            group.last_at = at;
            group.message = failure.message.clone();
            group.sample_id = task.id.to_string();
        }
    }
    let mut groups: Vec<FailureGroup> = groups.into_values().collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.count), std::cmp::Reverse(group.last_at)));
    Ok(Json(Failures { groups, looked_at }))
}

/// A message without what differs from task to task: numbers and ids.
fn fingerprint(message: &str) -> String {
    let mut plain = String::new();
    for word in message.split_whitespace() {
        if !plain.is_empty() {
            plain.push(' ');
        }
        let digits = word.chars().filter(char::is_ascii_digit).count();
        match digits {
            0 => plain.push_str(word),
            _ => plain.push('#'),
        }
    }
    plain.chars().take(FINGERPRINT_LETTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_only_in_numbers_is_alike() {
        assert_eq!(fingerprint("no file /a/17 after 3 tries"), fingerprint("no file /a/99 after 12 tries"));
        assert_ne!(fingerprint("no file"), fingerprint("no disk"));
    }
}
