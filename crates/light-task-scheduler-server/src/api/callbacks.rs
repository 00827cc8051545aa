//! What remote services report of their jobs by themselves. Each address has a token of its own, for one execution of one
//! task: that is the credential, so nothing else is asked for.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use tower::ServiceExt;

use super::Api;
use super::problem::{Code, Problem, Result};

/// Where reports come in.
pub(crate) const CALLBACKS_PATH: &str = "/api/v1/callbacks";
/// Longest reason that is read of what takes them, in bytes.
const REASON_BYTES_MAX: usize = 8 << 10;

/// Takes a report of a remote service: the document that it would answer when asked for the job, or a CloudEvent.
///
/// The address is made for one execution of a task and told to the service when the job is started. What comes twice or
/// late is answered like the first one, and changes nothing.
#[utoipa::path(post, operation_id = "report_job", path = "/api/v1/callbacks/{token}", tag = "callbacks",
    params(("token" = String, Path)), request_body = serde_json::Value,
    responses(
        (status = 204),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(()))]
pub(crate) async fn report(State(api): State<Api>, request: Request) -> Result<Response, Response> {
    Ok(receive(&api, request).await?)
}

/// Takes a report whose address says what happened: `succeeded`, `failed` or `progress`.
#[utoipa::path(post, operation_id = "report_job_end", path = "/api/v1/callbacks/{token}/{what}", tag = "callbacks",
    params(("token" = String, Path), ("what" = String, Path)), request_body = serde_json::Value,
    responses(
        (status = 204),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(()))]
pub(crate) async fn report_as(State(api): State<Api>, request: Request) -> Result<Response, Response> {
    Ok(receive(&api, request).await?)
}

/// Has the executor's own router take it, and says in the words of this API why not.
async fn receive(api: &Api, request: Request) -> Result<Response> {
    let Some(router) = &api.options().callbacks else {
        return Err(Problem::new(Code::NotFound, "this server takes no reports; see http.callbacks in its settings"));
    };
    let (parts, body) = request.into_parts();
    let below = parts.uri.path().strip_prefix(CALLBACKS_PATH).unwrap_or_default();
    let uri: Uri = below.parse().map_err(|_| Problem::invalid("this is no address of a report"))?;
    // Made anew: what the routing of this request has found out is not for the other router.
    let mut inner = Request::new(body);
    (*inner.method_mut(), *inner.uri_mut(), *inner.headers_mut()) = (parts.method, uri, parts.headers);
    let Ok(answer) = router.clone().oneshot(inner).await;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let code = match answer.status() {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        status if status.is_client_error() => Code::Invalid,
        _ => Code::Unavailable,
    };
    Err(Problem::new(code, reason(answer.into_body()).await))
}

async fn reason(body: Body) -> String {
    let bytes = to_bytes(body, REASON_BYTES_MAX).await.unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
