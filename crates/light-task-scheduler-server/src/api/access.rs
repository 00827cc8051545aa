//! Who may do what. Each operation says in its description which role it asks for, and is guarded by just that:
//! what the documentation promises and what is enforced are one thing.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use light_task_scheduler::Name;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::PathItem;
use utoipa::openapi::path::{Operation, Paths};

use super::Api;
use super::problem::{Code, Problem, Result};

/// What a credential is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks at everything of its queues, and changes nothing.
    Viewer,
    /// Also submits, cancels, retries and deletes tasks, and operates queues.
    Operator,
    /// Everything.
    Admin,
    /// Only what a worker needs: takes tasks and reports what became of them.
    Worker,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Operator, Role::Admin, Role::Worker];

    /// Its name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
            Role::Worker => "worker",
        }
    }

    /// Whether who has this role may do what asks for that one.
    pub fn covers(self, asked: Role) -> bool {
        match self {
            Role::Viewer => asked == Role::Viewer,
            Role::Operator => matches!(asked, Role::Viewer | Role::Operator),
            Role::Admin => true,
            Role::Worker => asked == Role::Worker,
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// For people: the name of the token.
    pub(crate) name: Arc<str>,
    /// What they may do.
    pub(crate) role: Role,
    /// In which queues; `None`: in all.
    pub(crate) queues: Option<Arc<[Name]>>,
}

impl Caller {
    /// Whoever reaches a server that asks for no credentials.
    pub(crate) fn anybody() -> Self {
        Caller { name: "anybody".into(), role: Role::Admin, queues: None }
    }

    /// Whether they may see and touch this queue.
    pub(crate) fn may_use(&self, queue: &Name) -> bool {
        self.queues.as_ref().is_none_or(|queues| queues.contains(queue))
    }

    /// Refuses a queue that they may not use.
    pub(crate) fn check_queue(&self, queue: &Name) -> Result<()> {
        if self.may_use(queue) {
            return Ok(());
        }
        Err(Problem::new(Code::Forbidden, format!("this token is not for the queue {queue}")))
    }

    /// Refuses who is bound to some queues: the operation concerns all of them.
    pub(crate) fn check_all_queues(&self) -> Result<()> {
        match &self.queues {
            None => Ok(()),
            Some(_) => Err(Problem::new(Code::Forbidden, "this concerns all queues, and this token is for some")),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    /// What the guard has found out.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| *Problem::new(Code::Internal, "a handler was reached past its guard"))
    }
}

/// What an operation asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing.
    Nothing,
    /// A credential with this role.
    Role(Role),
}

/// What each method of a path asks for.
pub(crate) type Rules = Arc<HashMap<Method, Asked>>;

/// The name under which operations say the role that they ask for.
pub(crate) const SCHEME: &str = "token";

/// Reads the rules in the description of a path.
pub(crate) fn rules(paths: &Paths) -> Rules {
    let items = paths.paths.values();
    Arc::new(items.flat_map(operations).map(|(method, operation)| (method, asked(operation))).collect())
}

/// The operations of a path.
fn operations(item: &PathItem) -> Vec<(Method, &Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::PATCH, &item.patch),
        (Method::HEAD, &item.head),
        (Method::OPTIONS, &item.options),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?))).collect()
}

/// What an operation asks for; one that says nothing asks for the most.
fn asked(operation: &Operation) -> Asked {
    let described = operation.security.as_ref().and_then(|security| serde_json::to_value(security).ok());
    let Some(described) = described else { return Asked::Role(Role::Admin) };
    let scopes = described.as_array().into_iter().flatten();
    let mut scopes = scopes.filter_map(|requirement| requirement.get(SCHEME)?.as_array()?.first()?.as_str());
    match scopes.next() {
        Some(name) => Asked::Role(Role::ALL.into_iter().find(|role| role.as_str() == name).unwrap_or(Role::Admin)),
        None => Asked::Nothing,
    }
}

/// Lets through who may do what they ask for, and says who they are.
pub(crate) async fn guard(State((api, rules)): State<(Api, Rules)>, mut request: Request, next: Next) -> Response {
    // `HEAD` is answered by what answers `GET`.
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    // A method without a rule has no handler: the router says so.
    if let Some(asked) = rules.get(method).copied() {
        match admit(&api, asked, &request) {
            Ok(caller) => request.extensions_mut().insert(caller),
            Err(problem) => return problem.into_response(),
        };
    }
    next.run(request).await
}

fn admit(api: &Api, asked: Asked, request: &Request) -> Result<Caller> {
    let Asked::Role(role) = asked else { return Ok(Caller::anybody()) };
    let caller = api.caller(request)?;
    if api.options().read_only && role != Role::Viewer {
        return Err(Problem::new(Code::Forbidden, "this server is read-only"));
    }
    if !caller.role.covers(role) {
        let (name, has, needs) = (&caller.name, caller.role.as_str(), role.as_str());
        return Err(Problem::new(Code::Forbidden, format!("`{name}` is {has}, and this asks for {needs}")));
    }
    Ok(caller)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_cover_what_they_should() {
        let covers = |role: Role| Role::ALL.map(|asked| role.covers(asked));
        assert_eq!(covers(Role::Viewer), [true, false, false, false]);
        assert_eq!(covers(Role::Operator), [true, true, false, false]);
        assert_eq!(covers(Role::Admin), [true, true, true, true]);
        assert_eq!(covers(Role::Worker), [false, false, false, true]);
    }
}
