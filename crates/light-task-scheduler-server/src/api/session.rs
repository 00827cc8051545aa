//! Who asks: by a token, by a browser's session, or by being on this host; and from which page.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use light_task_scheduler::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

use super::Api;
use super::access::{Caller, Role};
use super::body::Body;
use super::health::CallerView;
use super::problem::{Code, Problem, Result};
use super::tokens::{NewToken, Token, TokenFile};

/// Names the session of a browser.
const COOKIE: &str = "lts_session";
/// Says from where a browser's request comes.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who is let in.
#[derive(Debug, Clone, Default)]
pub enum Admission {
    /// Whoever asks under a name of this host, without a credential: for a server that listens on this host only.
    #[default]
    ThisHost,
    /// Everybody: for a router that is mounted behind a check of your own.
    Everybody,
    /// Who has one of these tokens.
    Tokens(Arc<TokenFile>),
}

impl Admission {
    /// What to answer to a request that is not let in, whatever it may do: for routes of your own beside the API.
    pub fn refusal(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        self.caller(method, headers).err().map(Response::from)
    }

    /// Who asks.
    pub(super) fn caller(&self, method: &Method, headers: &HeaderMap) -> Result<Caller> {
        check_origin(method, headers)?;
        match self {
            Admission::Everybody => Ok(Caller::anybody()),
            Admission::ThisHost if is_this_host(host(headers)) => Ok(Caller::anybody()),
            Admission::ThisHost => Err(Problem::new(
                Code::Forbidden,
                "without tokens this server answers only to the names of this host: localhost, 127.0.0.1, [::1]",
            )),
            Admission::Tokens(file) => {
                if let Some(token) = bearer(headers) {
                    return file.bearer(token);
                }
                match session_of(headers) {
                    Some(session) => file.session(session),
                    None => Err(Problem::new(Code::Unauthenticated, "send a token: `Authorization: Bearer lts_…`")),
                }
            }
        }
    }
}

/// A page of another site may not make a browser change anything here.
fn check_origin(method: &Method, headers: &HeaderMap) -> Result<()> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let foreign = || Problem::new(Code::Forbidden, "a page of another site may not do this");
    let site = headers.get(FETCH_SITE).map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return Err(foreign());
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, place)| place);
    if origin.is_some() && origin == host(headers) { Ok(()) } else { Err(foreign()) }
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

/// Whether this is a name that leads to this host from nowhere else: a page of another site can make its own name lead
/// here, but not one of these.
fn is_this_host(host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn session_of(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// A token to sign in with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    /// The token, as `lts token create` has told it.
    token: String,
}

/// Signs a browser in: the answer sets a cookie that scripts cannot read.
#[utoipa::path(post, path = "/api/v1/session", tag = "access", request_body = SignIn,
    responses(
        (status = 200, body = CallerView),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(()))]
pub(crate) async fn sign_in(
    State(api): State<Api>,
    headers: HeaderMap,
    Body(wish): Body<SignIn>,
) -> Result<Response, Response> {
    check_origin(&Method::POST, &headers)?;
    let file = api.token_file()?;
    let (session, ttl, caller) = file.sign_in(&wish.token)?;
    let cookie = api.cookie(&headers, &session, ttl.as_secs());
    Ok(([(header::SET_COOKIE, cookie)], Json(CallerView::from(&caller))).into_response())
}

/// Signs a browser out.
#[utoipa::path(delete, path = "/api/v1/session", tag = "access",
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")),
    security(()))]
pub(crate) async fn sign_out(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Response> {
    check_origin(&Method::DELETE, &headers)?;
    if let (Ok(file), Some(session)) = (api.token_file(), session_of(&headers)) {
        file.sign_out(session);
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, api.cookie(&headers, "", 0))]).into_response())
}

impl Api {
    fn cookie(&self, headers: &HeaderMap, session: &str, seconds: u64) -> String {
        let path = if self.options().base_path.is_empty() { "/" } else { &self.options().base_path };
        // Behind a proxy that speaks TLS the browser must not send it in the open.
        let forwarded = headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes() == b"https");
        let secure = if forwarded { "; Secure" } else { "" };
        format!("{COOKIE}={session}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }

    fn token_file(&self) -> Result<&TokenFile> {
        match &self.options().admission {
            Admission::Tokens(file) => Ok(file),
            _ => Err(Problem::new(Code::Conflict, "this server knows no tokens: it is open")),
        }
    }
}

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenView {
    /// Names it.
    id: String,
    /// For people: whose it is.
    name: String,
    /// What it is good for.
    role: Role,
    /// In which queues; empty: in all.
    queues: Vec<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it ends; none: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// What is sent as `Authorization: Bearer`: told once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        TokenView {
            id: token.id,
            name: token.name,
            role: token.role,
            queues: token.queues.iter().map(ToString::to_string).collect(),
            created_at: token.created_at,
            expires_at: token.expires_at,
            token: None,
        }
    }
}

/// Lists the tokens, without their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "access",
    responses((status = 200, body = Vec<TokenView>), (status = "4XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["admin"])))]
pub(crate) async fn list_tokens(State(api): State<Api>) -> Result<Json<Vec<TokenView>>, Response> {
    let tokens = api.token_file()?.list().map_err(Box::<Problem>::from)?;
    Ok(Json(tokens.into_iter().map(TokenView::from).collect()))
}

/// Makes a token; its secret is told this once.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "access", request_body = NewToken,
    responses((status = 201, body = TokenView), (status = "4XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["admin"])))]
pub(crate) async fn create_token(
    State(api): State<Api>,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<TokenView>), Response> {
    let (token, text) = api.token_file()?.create(new).map_err(Box::<Problem>::from)?;
    Ok((StatusCode::CREATED, Json(TokenView { token: Some(text), ..TokenView::from(token) })))
}

/// Ends a token, and the sessions that were signed in with it.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "access", params(("id" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["admin"])))]
pub(crate) async fn revoke_token(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, Response> {
    match api.token_file()?.revoke(&id).map_err(Box::<Problem>::from)? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found(format_args!("token {id}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_names_of_this_host() {
        for host in ["localhost", "LOCALHOST:7600", "127.0.0.1:7600", "127.9.9.9", "[::1]:7600", "[::1]"] {
            assert!(is_this_host(Some(host)), "{host}");
        }
        for host in ["", "example.org", "localhost.example.org", "127.0.0.1.example.org", "10.0.0.1:7600", "[::2]:1"] {
            assert!(!is_this_host(Some(host)), "{host}");
        }
        assert!(!is_this_host(None));
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
        };
        let ours: HeaderMap = headers(&[("host", "localhost:7600"), ("origin", "http://localhost:7600")]);
        assert!(check_origin(&Method::POST, &ours).is_ok());
        for foreign in [
            headers(&[("host", "localhost:7600"), ("origin", "http://evil.example")]),
            headers(&[("host", "localhost:7600"), ("origin", "http://localhost:7601")]),
            headers(&[("host", "localhost:7600"), ("origin", "null")]),
            headers(&[("host", "localhost:7600"), ("sec-fetch-site", "cross-site")]),
            headers(&[("host", "localhost:7600"), ("sec-fetch-site", "same-site")]),
        ] {
            assert!(check_origin(&Method::POST, &foreign).is_err(), "{foreign:?}");
            assert!(check_origin(&Method::GET, &foreign).is_ok());
        }
        assert!(check_origin(&Method::POST, &HeaderMap::new()).is_ok(), "a program that is no browser");
    }
}
