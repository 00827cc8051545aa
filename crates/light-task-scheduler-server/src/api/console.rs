//! The web console: files of `console/`, which a debug build reads from the disk at every request, and a release build
//! has within it. Scripts and style sheets are [packed](pack) on their way.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use rust_embed::RustEmbed;

use super::problem::Problem;
use super::{Api, ApiOptions, pack};

#[derive(RustEmbed)]
#[folder = "../../console/"]
#[exclude = "tests/*"]
#[exclude = "package.json"]
struct Files;

/// The console's own addresses: each shows the same page, which finds the rest by its address.
const PAGES: [&str; 8] =
    ["/", "/tasks", "/tasks/{id}", "/queues", "/queues/{name}", "/workers", "/failures", "/submit"];
/// The address changes with every release, so that a browser may keep files for ever. Under any other version there are the
/// same files, and none is kept: a page of one's own that is made of these parts names them by `assets/latest/…`.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// For ever: a year, in seconds.
const KEPT: &str = "public, max-age=31536000, immutable";

/// Nothing is loaded but from here, and nothing runs that stands within a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; font-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'";

/// Where a file of the console is served.
pub(super) fn asset(options: &ApiOptions, path: &str) -> String {
    format!("{}/assets/{VERSION}/{path}", options.base_path)
}

/// Serves it.
pub(super) fn router() -> Router<Api> {
    let router = PAGES.into_iter().fold(Router::new(), |router, page| router.route(page, get(index)));
    router.route("/assets/{version}/{*path}", get(file))
}

pub(super) async fn index(State(api): State<Api>) -> Response {
    let Some(page) = Files::get("index.html") else {
        return Problem::not_found("console in this build").into_response();
    };
    let base = &api.options().base_path;
    let page = String::from_utf8_lossy(&page.data)
        .replace("{{base}}", &format!("{base}/"))
        .replace("{{assets}}", &format!("assets/{VERSION}/"));
    ([(header::CACHE_CONTROL, "no-cache")], Html(page)).into_response()
}

async fn file(Path((version, path)): Path<(String, String)>) -> Response {
    // A name is looked up among those that were built in; no path of a request is ever opened.
    let known = Files::iter().find(|name| *name == path).and_then(|name| Files::get(&name));
    let Some(file) = known else {
        return (StatusCode::NOT_FOUND, *Problem::not_found(format_args!("file {path}"))).into_response();
    };
    let kept = if cfg!(debug_assertions) || version != VERSION { "no-cache" } else { KEPT };
    let headers =
        [(header::CONTENT_TYPE, file.metadata.mimetype().to_owned()), (header::CACHE_CONTROL, kept.to_owned())];
    match pack::packed(&path, &file.data) {
        Some(packed) => (headers, packed).into_response(),
        None => (headers, file.data.into_owned()).into_response(),
    }
}

/// What every answer tells a browser not to do.
pub(super) async fn hardened(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}
