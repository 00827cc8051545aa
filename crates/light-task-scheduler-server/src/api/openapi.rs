//! The description of this API, made from its code (OpenAPI 3.1).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Server};

use super::access::SCHEME;
use super::{Api, ApiOptions, console, docs};

/// What the description begins with.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("light-task-scheduler")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Takes tasks in, runs them with exact limits, and says what became of them. \
             Errors are problem details (RFC 9457) with a stable `code`. \
             A task and a queue's settings have an `ETag`; a change with `If-Match` is refused with 412 if it is another one \
             right before the change. The comparison is not one step with the change: of two changes within the same moment \
             both may pass. What the state of a task forbids is refused in any case.",
        ))
        .license(Some(utoipa::openapi::LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()))
        .build();
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token made by `lts token create`; the role that each operation asks for is its scope."))
        .build();
    let tags = [
        ("tasks", "Submit, watch and operate tasks"),
        ("queues", "Limits, rates and pauses"),
        ("workers", "Who runs tasks"),
        ("leases", "How workers take tasks, and report what became of them"),
        ("callbacks", "What remote services report of their jobs by themselves"),
        ("access", "Tokens and sessions"),
        ("operations", "How the server does"),
    ];
    OpenApiBuilder::new()
        .info(info)
        .components(Some(ComponentsBuilder::new().security_scheme(SCHEME, SecurityScheme::Http(token)).build()))
        .tags(Some(tags.map(|(name, what)| TagBuilder::new().name(name).description(Some(what)).build())))
        .build()
}

/// The whole description, as it is served at this place.
pub(super) fn finished(mut document: OpenApi, options: &ApiOptions) -> OpenApi {
    document.servers = (!options.base_path.is_empty()).then(|| vec![Server::new(&options.base_path)]);
    document
}

/// Serves it, for programs and for people.
pub(super) fn router(document: &OpenApi, options: &ApiOptions) -> Router<Api> {
    let value = serde_json::to_value(document).unwrap_or_default();
    let page: Arc<str> = docs::page(&value, &options.base_path, &console::asset(options, "styles/docs.css")).into();
    let json: Arc<str> = value.to_string().into();
    const FRESH: (header::HeaderName, &str) = (header::CACHE_CONTROL, "no-cache");
    let json = async move |_: State<Api>| {
        ([FRESH, (header::CONTENT_TYPE, "application/json")], json.to_string()).into_response()
    };
    let page = async move |_: State<Api>| ([FRESH], Html(page.to_string())).into_response();
    Router::new().route("/openapi.json", get(json)).route("/docs", get(page))
}
