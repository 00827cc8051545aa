//! The description of this API, made from its code (OpenAPI 3.1).

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Server};

use super::access::SCHEME;
use super::{Api, ApiOptions};

/// What the description begins with.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("light-task-scheduler")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Takes tasks in, runs them with exact limits, and says what became of them. \
             Errors are problem details (RFC 9457) with a stable `code`.",
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

/// Serves it.
pub(super) fn router(document: Arc<OpenApi>) -> Router<Api> {
    Router::new().route(
        "/openapi.json",
        get(async move |_: State<Api>| {
            ([(header::CACHE_CONTROL, "no-cache")], Json(document.as_ref())).into_response()
        }),
    )
}
