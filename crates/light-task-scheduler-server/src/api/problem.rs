//! What is answered when something is wrong: problem details (RFC 9457) with a stable code.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use light_task_scheduler::{Error, ErrorKind};
use serde::Serialize;
use utoipa::ToSchema;

/// How long a client waits before it asks a store again that cannot answer now, in seconds.
const RETRY_AFTER_S: u64 = 1;
/// Most single errors that are named in one answer.
pub(crate) const ERRORS_MAX: usize = 20;

/// What programs decide on. Every code is one line of the documentation and of both dictionaries of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    /// The request makes no sense as it is.
    Invalid,
    /// The request needs a credential, or its credential is not valid.
    Unauthenticated,
    /// This credential may not do that.
    Forbidden,
    /// No such task, queue, result, log or path.
    NotFound,
    /// No such method here.
    MethodNotAllowed,
    /// It contradicts what is stored, or the state of the task forbids it.
    Conflict,
    /// It is no more what `If-Match` says. Nothing was done.
    PreconditionFailed,
    /// The worker is not registered, or was declared dead: it registers anew, under a fresh id.
    NotRegistered,
    /// The request is larger than allowed.
    TooLarge,
    /// The body is of a type that is not understood.
    UnsupportedMediaType,
    /// The range is not a part of the log.
    RangeNotSatisfiable,
    /// The same `Idempotency-Key` was used for another request.
    IdempotencyMismatch,
    /// Too many requests or connections at once.
    TooManyRequests,
    /// A bug, or a broken store.
    Internal,
    /// The store cannot be reached just now, or the server is stopping.
    Unavailable,
    /// The store is full. Nothing was taken in.
    Full,
}

impl Code {
    /// Every code.
    pub(crate) const ALL: [Code; 16] = [
        Code::Invalid,
        Code::Unauthenticated,
        Code::Forbidden,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::Conflict,
        Code::PreconditionFailed,
        Code::NotRegistered,
        Code::TooLarge,
        Code::UnsupportedMediaType,
        Code::RangeNotSatisfiable,
        Code::IdempotencyMismatch,
        Code::TooManyRequests,
        Code::Internal,
        Code::Unavailable,
        Code::Full,
    ];

    /// The status that goes with it, and a title.
    fn status(self) -> (StatusCode, &'static str) {
        match self {
            Code::Invalid => (StatusCode::BAD_REQUEST, "the request makes no sense"),
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "who are you"),
            Code::Forbidden => (StatusCode::FORBIDDEN, "not allowed"),
            Code::NotFound => (StatusCode::NOT_FOUND, "not found"),
            Code::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "no such method here"),
            Code::Conflict => (StatusCode::CONFLICT, "contradicts what is stored"),
            Code::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "changed meanwhile"),
            Code::NotRegistered => (StatusCode::CONFLICT, "not registered"),
            Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too large"),
            Code::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "type not understood"),
            Code::RangeNotSatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, "no such range"),
            Code::IdempotencyMismatch => (StatusCode::UNPROCESSABLE_ENTITY, "key used for another request"),
            Code::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "too many requests"),
            Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "not available just now"),
            Code::Full => (StatusCode::INSUFFICIENT_STORAGE, "the store is full"),
        }
    }

    /// What it means, with its status.
    pub(crate) fn in_words(self) -> String {
        let (status, title) = self.status();
        format!("{}: {title}", status.as_u16())
    }

    /// Its name, as in JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Code::Invalid => "invalid",
            Code::Unauthenticated => "unauthenticated",
            Code::Forbidden => "forbidden",
            Code::NotFound => "not_found",
            Code::MethodNotAllowed => "method_not_allowed",
            Code::Conflict => "conflict",
            Code::PreconditionFailed => "precondition_failed",
            Code::NotRegistered => "not_registered",
            Code::TooLarge => "too_large",
            Code::UnsupportedMediaType => "unsupported_media_type",
            Code::RangeNotSatisfiable => "range_not_satisfiable",
            Code::IdempotencyMismatch => "idempotency_mismatch",
            Code::TooManyRequests => "too_many_requests",
            Code::Internal => "internal",
            Code::Unavailable => "unavailable",
            Code::Full => "full",
        }
    }
}

/// Why a request failed, as `application/problem+json`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Names the kind of problem: a reference into the documentation of this API.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// To decide on.
    pub(crate) code: Code,
    /// What happened, to what, and what to do.
    pub(crate) detail: String,
    /// What of the request is wrong, where several things may be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// Not to be tried again sooner than after so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// One thing that is wrong in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Where: a JSON pointer into the body, or the name of a parameter.
    pub(crate) pointer: String,
    /// What.
    pub(crate) message: String,
}

/// `Result` with a [`Problem`].
pub(crate) type Result<T, E = Box<Problem>> = std::result::Result<T, E>;

impl Problem {
    /// A problem of this code.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Box<Problem> {
        let (status, title) = code.status();
        Box::new(Problem {
            kind: format!("/docs#{}", code.as_str()),
            title,
            status: status.as_u16(),
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: matches!(code, Code::Unavailable | Code::TooManyRequests).then_some(RETRY_AFTER_S),
        })
    }

    /// A request that makes no sense.
    pub(crate) fn invalid(detail: impl Into<String>) -> Box<Problem> {
        Problem::new(Code::Invalid, detail)
    }

    /// A request in which these things are wrong, of which at least one is given; the first are named.
    pub(crate) fn of_fields(mut errors: Vec<FieldError>) -> Box<Problem> {
        let more = errors.len().saturating_sub(1);
        let detail = match errors.first() {
            Some(first) if more > 0 => format!("{}: {} (and {more} more)", first.pointer, first.message),
            Some(first) if !first.pointer.is_empty() => format!("{}: {}", first.pointer, first.message),
            Some(first) => first.message.clone(),
            None => "the request makes no sense".to_owned(),
        };
        errors.truncate(ERRORS_MAX);
        let mut problem = Problem::invalid(detail);
        problem.errors = errors;
        problem
    }

    /// Something that is not there.
    pub(crate) fn not_found(what: impl std::fmt::Display) -> Box<Problem> {
        Problem::new(Code::NotFound, format!("there is no {what}"))
    }
}

impl From<Error> for Box<Problem> {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Invalid => Code::Invalid,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Conflict => Code::Conflict,
            ErrorKind::NotRegistered => Code::NotRegistered,
            ErrorKind::Full => Code::Full,
            ErrorKind::Unavailable => Code::Unavailable,
            _ => Code::Internal,
        };
        Problem::new(code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, _) = self.code.status();
        let retry_after = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// So that `?` answers a problem.
impl From<Box<Problem>> for Response {
    fn from(problem: Box<Problem>) -> Self {
        problem.into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_name_and_is_a_failure() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            let (status, _) = code.status();
            assert!(status.is_client_error() || status.is_server_error(), "{code:?}");
        }
    }

    #[test]
    fn the_first_errors_are_named_and_all_are_counted() {
        let error = |n: usize| FieldError { pointer: format!("/{n}"), message: "is wrong".to_owned() };
        let problem = Problem::of_fields((0..30).map(error).collect());
        assert_eq!(problem.detail, "/0: is wrong (and 29 more)");
        assert_eq!(problem.errors.len(), ERRORS_MAX);
    }
}
