//! Leases: how a worker on another host takes tasks, and reports what became of them.
//!
//! This is the contract of a [`Store`](light_task_scheduler::Store) call by call, so that a scheduler on a
//! `RemoteStore` is a worker, and what a worker in any other language needs. A lease is (task, owner, run), from the
//! answer to a claim: whatever is said under an older one changes nothing. Every call can be repeated when its answer
//! was lost. A token for some queues reaches the tasks of these queues only.

pub(super) mod runs;
pub(super) mod tasks;

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use futures_util::FutureExt;
use light_task_scheduler::store::remote::wire;
use light_task_scheduler::store::{self, Changes};
use light_task_scheduler::{Name, Store, TaskId};

use super::Api;
use super::access::Caller;
use super::body::Body;
use super::problem::{Problem, Result};

/// Longest wait for something to take or to change.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What the library answers, for a request.
fn told<T>(answer: light_task_scheduler::Result<T>) -> Result<T> {
    answer.map_err(Into::into)
}

/// What is sent for values of the contract.
fn sent<T, W: From<T>>(items: impl IntoIterator<Item = T>) -> Vec<W> {
    items.into_iter().map(W::from).collect()
}

impl Caller {
    /// The queues that are asked for, none of which stands for all that the caller may use.
    fn queues_among(&self, asked: Vec<Name>) -> Result<Vec<Name>> {
        asked.iter().try_for_each(|queue| self.check_queue(queue))?;
        match &self.queues {
            Some(queues) if asked.is_empty() => Ok(queues.to_vec()),
            _ => Ok(asked),
        }
    }
}

impl Api {
    /// Which of these tasks the caller may touch.
    async fn within_reach(&self, caller: &Caller, ids: &[TaskId]) -> Result<Vec<bool>> {
        if caller.queues.is_none() {
            return Ok(vec![true; ids.len()]);
        }
        let tasks = self.store().get(ids).await?;
        Ok(tasks.into_iter().map(|task| task.is_some_and(|task| caller.may_use(&task.spec.queue))).collect())
    }

    /// Does the work on those items that the caller may touch; the others are answered as if they were not there.
    async fn each_within_reach<I, A: Clone>(
        &self,
        caller: &Caller,
        items: Vec<I>,
        id: fn(&I) -> &TaskId,
        missing: A,
        work: impl AsyncFnOnce(Vec<I>) -> Result<Vec<A>>,
    ) -> Result<Vec<A>> {
        store::check_batch(items.len())?;
        let ids: Vec<TaskId> = items.iter().map(|item| id(item).clone()).collect();
        let reach = self.within_reach(caller, &ids).await?;
        let mut is_within = reach.iter();
        let within = items.into_iter().filter(|_| is_within.next() == Some(&true)).collect();
        let mut answers = work(within).await?.into_iter();
        let answer = |within| if within { answers.next() } else { Some(missing.clone()) };
        Ok(reach.into_iter().filter_map(answer).collect())
    }
}

/// What the store of this server can do.
#[utoipa::path(get, path = "/api/v1/leases", tag = "leases", operation_id = "lease_hello",
    responses(
        (status = 200, body = wire::Hello),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn hello(State(api): State<Api>, caller: Caller) -> Json<wire::Hello> {
    let store = api.store().capabilities();
    let queues = caller.queues.map(|queues| queues.to_vec());
    Json(wire::Hello { priority: store.priority, durable: store.durable, queues })
}

/// Registers a worker, under a fresh id. It is to send heartbeats, at least one in each `ttl`.
#[utoipa::path(post, path = "/api/v1/leases/register", tag = "leases", operation_id = "lease_register",
    request_body = wire::NewWorker,
    responses(
        (status = 200, description = "done"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn register(
    State(api): State<Api>,
    _: Caller,
    Body(new): Body<wire::NewWorker>,
) -> Result<Json<()>, Response> {
    let wire::NewWorker { worker, name, ttl } = new;
    let replica = store::NewReplica { id: worker, name, ttl: ttl.0, remote: true };
    Ok(Json(told(api.store().register(replica).await)?))
}

/// Ends a worker's registration: what it still owns can be taken over at once.
#[utoipa::path(post, path = "/api/v1/leases/leave", tag = "leases", operation_id = "lease_leave",
    request_body = wire::Worker,
    responses(
        (status = 200, description = "done"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn leave(
    State(api): State<Api>,
    _: Caller,
    Body(wire::Worker { worker }): Body<wire::Worker>,
) -> Result<Json<()>, Response> {
    Ok(Json(told(api.store().leave(worker).await)?))
}

/// Takes due tasks for a worker, in order, within the limits of their queues.
///
/// With `wait`, and nothing to take, the answer comes when it is worth asking again.
#[utoipa::path(post, path = "/api/v1/leases", tag = "leases", operation_id = "lease_claim",
    request_body = wire::ClaimRequest,
    responses(
        (status = 200, body = wire::Claim),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn claim(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<wire::ClaimRequest>,
) -> Result<Json<wire::Claim>, Response> {
    let wire::ClaimRequest { worker, number, kinds, queues, limit, among, wait } = request;
    let queues = caller.queues_among(queues)?;
    let wait = wait.map(|span| span.0.min(WAIT_MAX)).filter(|wait| !wait.is_zero());
    // What comes in after this is not missed by the wait.
    let seen = match wait {
        Some(_) => api.store().changed(Changes::default()).now_or_never().unwrap_or_default(),
        None => Changes::default(),
    };
    let request = store::ClaimRequest { replica: worker, number, kinds, queues, limit, among };
    let claim = told(api.store().claim(request).await)?;
    if let Some(wait) = wait.filter(|_| claim.tasks.is_empty()) {
        let wait = claim.next_at.map_or(wait, |at| wait.min(at.since(claim.now)));
        tokio::select! {
            () = work_after(&**api.store(), seen) => {}
            () = tokio::time::sleep(wait) => {}
            () = api.stopping() => {}
        }
    }
    let reach = api.within_reach(&caller, &claim.expired).await?;
    let expired = claim.expired.into_iter().zip(reach).filter_map(|(id, within)| within.then_some(id)).collect();
    Ok(Json(wire::Claim { tasks: sent(claim.tasks), expired, next_at: claim.next_at, now: claim.now }))
}

/// Resolves when tasks may have become claimable.
async fn work_after(store: &dyn Store, mut seen: Changes) {
    loop {
        let now = store.changed(seen).await;
        if now.work != seen.work {
            return;
        }
        seen = now;
    }
}

/// What could be claimed next, of each pair of queue and kind the first.
#[utoipa::path(post, path = "/api/v1/leases/candidates", tag = "leases", operation_id = "lease_candidates",
    request_body = wire::CandidatesRequest,
    responses(
        (status = 200, body = wire::Candidates),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn candidates(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<wire::CandidatesRequest>,
) -> Result<Json<wire::Candidates>, Response> {
    let wire::CandidatesRequest { kinds, queues, per_lane } = request;
    let request = store::CandidatesRequest { kinds, queues: caller.queues_among(queues)?, per_lane };
    Ok(Json(told(api.store().candidates(request).await)?.into()))
}

/// A worker's sign of life.
///
/// The answer says what it is to cancel, what its runs have said elsewhere, and, where it
/// and the store differ in what it holds, what it owns.
#[utoipa::path(post, path = "/api/v1/leases/heartbeat", tag = "leases", operation_id = "lease_heartbeat",
    request_body = wire::Heartbeat,
    responses(
        (status = 200, body = wire::HeartbeatReply),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn heartbeat(
    State(api): State<Api>,
    _: Caller,
    Body(wire::Heartbeat { worker, holdings }): Body<wire::Heartbeat>,
) -> Result<Json<wire::HeartbeatReply>, Response> {
    let holdings = told(holdings.map(TryInto::try_into).transpose())?;
    Ok(Json(told(api.store().heartbeat(store::Heartbeat { replica: worker, holdings }).await)?.into()))
}

/// The workers that are alive, and the dead that still own tasks.
#[utoipa::path(get, path = "/api/v1/leases/workers", tag = "leases", operation_id = "lease_workers",
    responses(
        (status = 200, body = Vec<wire::WorkerStatus>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn workers(State(api): State<Api>, _: Caller) -> Result<Json<Vec<wire::WorkerStatus>>, Response> {
    Ok(Json(sent(told(api.store().replicas().await)?)))
}

/// Declares dead whom the worker has seen expired twice, and takes over tasks that have no living owner.
#[utoipa::path(post, path = "/api/v1/leases/rescue", tag = "leases", operation_id = "lease_rescue",
    request_body = wire::RescueRequest,
    responses(
        (status = 200, body = wire::Rescued),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn rescue(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<wire::RescueRequest>,
) -> Result<Json<wire::Rescued>, Response> {
    let wire::RescueRequest { worker, suspects, kinds, queues, limit } = request;
    let suspects = suspects.into_iter().map(|one| store::Suspect { id: one.worker, beat: one.beat }).collect();
    let queues = caller.queues_among(queues)?;
    let request = store::RescueRequest { replica: worker, suspects, kinds, queues, limit };
    let store::Rescued { dead, tasks, now, .. } = told(api.store().rescue(request).await)?;
    Ok(Json(wire::Rescued { dead, tasks: sent(tasks), now }))
}

/// Waits until something may have changed: tasks to claim, wishes and reports for a heartbeat to bring, ends.
///
/// A hint, never needed: it may come late, twice or never.
#[utoipa::path(post, path = "/api/v1/leases/changed", tag = "leases", operation_id = "lease_changed",
    request_body = wire::ChangesRequest,
    responses(
        (status = 200, body = wire::Changes),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn changed(
    State(api): State<Api>,
    _: Caller,
    Body(wire::ChangesRequest { seen, wait }): Body<wire::ChangesRequest>,
) -> Json<wire::Changes> {
    tokio::select! {
        now = api.store().changed(seen.into()) => Json(now.into()),
        () = tokio::time::sleep(wait.0.min(WAIT_MAX)) => Json(seen),
        () = api.stopping() => Json(seen),
    }
}
