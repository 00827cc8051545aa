//! Whom a command asks: a server, or a store itself. Both by the same requests of the HTTP API, so that each command is
//! written once: a server is sent them over a socket, and over a store the API's own router answers within this process.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{Method, Request, Uri, header};
use axum::response::Response;
use clap::Args;
use futures_util::StreamExt;
use light_task_scheduler::TaskId;
use serde_json::Value;
use tower::ServiceExt;

use crate::api::{Api, quoted, url_encoded};
use crate::cli::context::{Context, Contexts};
use crate::exit::{self, CONFLICT, ERROR, NOT_FOUND, Problem, Result, UNREACHABLE};
use crate::open::Opened;
use crate::store_url::{STORE_DEFAULT, StoreUrl};

/// How long a connection to a server may take to come about.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a server may be silent: its streams say at least every 15 s that they live, and no wait is asked for longer.
const SILENT_MAX: Duration = Duration::from_secs(45);
/// Longest answer that is read whole, in bytes (64 MiB).
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How many tasks with the same beginning are named when it is not unique.
const SHOWN_MAX: usize = 5;

/// Whom to ask.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TargetArgs {
    /// The server to ask, for example http://127.0.0.1:7600 [env: LTS_SERVER]
    #[arg(long, value_name = "URL", conflicts_with = "store")]
    server: Option<String>,
    /// The token for it [env: LTS_TOKEN]
    #[arg(long, value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The store to ask in place of a server: a path, sqlite:PATH, postgres://…, mysql://… or redis://… [env: LTS_STORE] [default: ./lts.db]
    #[arg(long, value_name = "URL")]
    store: Option<StoreUrl>,
    /// Whom to ask, by the name that `lts context` knows [env: LTS_CONTEXT]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["server", "store"])]
    context: Option<String>,
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A server.
    Server(String),
    /// A store.
    Store(StoreUrl),
}

/// What the options, the environment and the file of contexts come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Where it is.
    pub(crate) place: Place,
    /// The token for a server.
    pub(crate) token: Option<String>,
    /// The context it comes from.
    pub(crate) context: Option<String>,
    /// Changes are asked about first.
    pub(crate) production: bool,
}

impl TargetArgs {
    /// Which target is meant: options before the environment, this before the context in use, then `./lts.db`.
    pub(crate) fn choose(&self, variable: impl Fn(&str) -> Option<String>, contexts: &Contexts) -> Result<Chosen> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let token = self.token.clone().or_else(|| variable("LTS_TOKEN"));
        let direct = |place| Ok(Chosen { place, token: token.clone(), context: None, production: false });
        match (&self.server, &self.store) {
            (Some(server), _) => return direct(Place::Server(server.clone())),
            (_, Some(store)) => return direct(Place::Store(store.clone())),
            _ => {}
        }
        let named = match &self.context {
            Some(name) => Some(name.clone()),
            None => match (variable("LTS_SERVER"), variable("LTS_STORE")) {
                (Some(_), Some(_)) => {
                    return Err(Problem::usage(
                        "LTS_SERVER and LTS_STORE are both set; say by --server or --store which is meant",
                    ));
                }
                (Some(server), None) => return direct(Place::Server(server)),
                (None, Some(store)) => return direct(Place::Store(parse_store(&store))),
                _ => variable("LTS_CONTEXT").or_else(|| contexts.current.clone()),
            },
        };
        match named {
            Some(name) => contexts.find(&name)?.chosen(&name, token),
            None => direct(Place::Store(parse_store(STORE_DEFAULT))),
        }
    }

    /// Which target is meant.
    pub(crate) fn chosen(&self) -> Result<Chosen> {
        self.choose(|name| std::env::var(name).ok(), &Contexts::read()?)
    }

    /// The target, which must be there.
    pub(crate) async fn open(&self) -> Result<Target> {
        Target::open(self.chosen()?, false).await
    }

    /// The target; a store is made if there is none.
    pub(crate) async fn open_or_create(&self) -> Result<Target> {
        Target::open(self.chosen()?, true).await
    }
}

fn parse_store(text: &str) -> StoreUrl {
    let Ok(url) = text.parse();
    url
}

impl Context {
    fn chosen(&self, name: &str, token: Option<String>) -> Result<Chosen> {
        let place = match (&self.server, &self.store) {
            (Some(server), None) => Place::Server(server.clone()),
            (None, Some(store)) => Place::Store(parse_store(store)),
            _ => {
                return Err(Problem::usage(format!(
                    "the context {name} must have either a server or a store; see `lts context set`"
                )));
            }
        };
        let token = token.or_else(|| self.token.clone());
        Ok(Chosen { place, token, context: Some(name.to_owned()), production: self.production })
    }
}

/// Whom a command asks.
#[derive(Debug)]
pub(crate) struct Target {
    way: Way,
    /// What it was chosen by.
    pub(crate) chosen: Chosen,
}

#[derive(Debug)]
enum Way {
    Server { client: reqwest::Client, base: String },
    Store { api: Api, router: axum::Router, opened: Box<Opened> },
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(crate) struct Reply {
    status: u16,
    body: ReplyBody,
}

#[derive(Debug)]
enum ReplyBody {
    Here(BodyDataStream),
    There(Box<reqwest::Response>),
}

impl Target {
    /// Opens what was chosen; a store is made if there is none and it may be.
    pub(crate) async fn open(chosen: Chosen, create: bool) -> Result<Target> {
        let way = match &chosen.place {
            Place::Server(url) => {
                let base = base_of(url)?;
                Way::Server { client: client(&base)?, base }
            }
            Place::Store(url) => {
                let opened = Box::new(if create { url.open().await? } else { url.open_existing().await? });
                let api = Api::over_store(opened.store.clone(), opened.logs.clone());
                Way::Store { router: api.router(), api, opened }
            }
        };
        Ok(Target { way, chosen })
    }

    /// The store, if it is asked itself.
    pub(crate) fn opened(&self) -> Option<&Opened> {
        match &self.way {
            Way::Store { opened, .. } => Some(opened),
            Way::Server { .. } => None,
        }
    }

    /// Where it is, for people.
    pub(crate) fn shown(&self) -> String {
        match &self.chosen.place {
            Place::Server(url) => url.clone(),
            Place::Store(url) => url.to_string(),
        }
    }

    /// Reads.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None, &[]).await?.json().await
    }

    /// Reads something that is no JSON.
    pub(crate) async fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        self.call(Method::GET, path, None, &[]).await?.whole().await
    }

    /// Asks for something to be done.
    pub(crate) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        self.call(Method::POST, path, body.map(Value::to_string), &[]).await?.json().await
    }

    /// Replaces something.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::PUT, path, Some(body.to_string()), &[]).await?.json().await
    }

    /// Removes something.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, None, &[]).await.map(drop)
    }

    /// Sends a request. An answer that says that it failed is a problem.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        headers: &[(&str, &str)],
    ) -> Result<Reply> {
        let reply = match &self.way {
            Way::Server { client, base } => {
                let mut request = client.request(method, format!("{base}{path}"));
                if let Some(token) = &self.chosen.token {
                    request = request.bearer_auth(token);
                }
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                if let Some(body) = body {
                    request = request.header(header::CONTENT_TYPE, "application/json").body(body);
                }
                Reply::there(request.send().await.map_err(|error| unreachable(base, &error))?)
            }
            Way::Store { router, .. } => {
                let mut request = Request::builder().method(method).uri(path);
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                if body.is_some() {
                    request = request.header(header::CONTENT_TYPE, "application/json");
                }
                let request = request
                    .body(body.map_or_else(Body::empty, Body::from))
                    .map_err(|error| Problem::new(ERROR, format!("{path} cannot be asked for: {error}")))?;
                let Ok(response) = router.clone().oneshot(request).await;
                Reply::here(response)
            }
        };
        if reply.status >= 400 { Err(reply.problem(&self.shown()).await) } else { Ok(reply) }
    }

    /// The task with this id, or the only one whose id begins so; without what only `GET /tasks/{id}` has.
    pub(crate) async fn find(&self, text: &str) -> Result<Value> {
        let missing = || Problem::new(NOT_FOUND, format!("there is no task {text}"));
        // What is no id is no beginning of one either.
        if TaskId::new(text).is_err() {
            return Err(missing());
        }
        match self.get(&task_path(text, "")).await {
            Err(problem) if problem.code == NOT_FOUND => {}
            found => return found,
        }
        let limit = SHOWN_MAX + 1;
        let query = url_encoded(&format!("id:{}", quoted(text)));
        let page = self.get(&format!("/api/v1/tasks?limit={limit}&q={query}")).await?;
        let found = page["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
        match found {
            [] => Err(missing()),
            [only] => Ok(only.clone()),
            several => {
                let more = if several.len() > SHOWN_MAX { ", …" } else { "" };
                let ids: Vec<&str> = several.iter().take(SHOWN_MAX).filter_map(|task| task["id"].as_str()).collect();
                Err(Problem::new(CONFLICT, format!("several tasks begin with {text}: {}{more}", ids.join(", "))))
            }
        }
    }

    /// The ids of these tasks; none if one of them is not there.
    pub(crate) async fn find_ids(&self, texts: &[String]) -> Result<Vec<String>> {
        let mut ids = Vec::with_capacity(texts.len());
        for text in texts {
            ids.push(self.find(text).await?["id"].as_str().unwrap_or_default().to_owned());
        }
        Ok(ids)
    }

    /// All about a task.
    pub(crate) async fn task(&self, id: &str) -> Result<Value> {
        self.get(&task_path(id, "")).await
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Way::Store { api, .. } = &self.way {
            api.stop();
        }
    }
}

/// The path of a task, and what is below it.
pub(crate) fn task_path(id: &str, below: &str) -> String {
    format!("/api/v1/tasks/{}{below}", url_encoded(id))
}

/// The path of a queue, and what is below it.
pub(crate) fn queue_path(name: &str, below: &str) -> String {
    format!("/api/v1/queues/{}{below}", url_encoded(name))
}

/// The address of a server without what is appended to it.
fn base_of(url: &str) -> Result<String> {
    let told = |why: &str| Problem::usage(format!("{why}; a server is named like http://127.0.0.1:7600"));
    let uri: Uri = url.parse().map_err(|_| told("what --server names is no URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(told("what --server names begins neither with http:// nor https://"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(told("what --server names has a user in it: give a token by --token or LTS_TOKEN"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn client(base: &str) -> Result<reqwest::Client> {
    // The one source of ciphers; an error means that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_WITHIN)
        .read_timeout(SILENT_MAX)
        .user_agent(concat!("lts/", env!("CARGO_PKG_VERSION")));
    let host = base.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    if host == "localhost" || address.is_ok_and(|address| address.is_loopback()) {
        // A proxy has another one.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| Problem::new(ERROR, format!("no HTTP client can be made: {error}")))
}

fn unreachable(base: &str, error: &reqwest::Error) -> Problem {
    let mut why: &dyn std::error::Error = error;
    while let Some(source) = why.source() {
        why = source;
    }
    let message = match error.is_timeout() {
        true => format!("{base} does not answer"),
        false => format!("cannot reach {base}: {why}"),
    };
    Problem::new(UNREACHABLE, format!("{message}; --server or LTS_SERVER says where a server is"))
}

impl Reply {
    fn here(response: Response) -> Reply {
        let status = response.status().as_u16();
        Reply { status, body: ReplyBody::Here(response.into_body().into_data_stream()) }
    }

    fn there(response: reqwest::Response) -> Reply {
        Reply { status: response.status().as_u16(), body: ReplyBody::There(Box::new(response)) }
    }

    /// The next part of the body; `None`: that was all.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let broken = |error: &dyn std::fmt::Display| {
            Problem::new(UNREACHABLE, format!("the connection broke before the answer was whole: {error}"))
        };
        match &mut self.body {
            ReplyBody::Here(stream) => stream.next().await.transpose().map_err(|error| broken(&error)),
            ReplyBody::There(response) => response.chunk().await.map_err(|error| broken(&error)),
        }
    }

    async fn whole(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Problem::new(ERROR, format!("the answer is longer than {ANSWER_BYTES_MAX} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// The body as JSON.
    pub(crate) async fn json(self) -> Result<Value> {
        let bytes = self.whole().await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Problem::new(ERROR, format!("the answer is no JSON: {error}; is it lts that answers?")))
    }

    async fn problem(self, place: &str) -> Problem {
        let status = self.status;
        let body = self.whole().await.ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        match body {
            Some(body) if body["code"].is_string() => Problem::of_api(body),
            _ => Problem::new(
                ERROR,
                format!("{place} answers with status {status} and without saying why; is it lts that answers there?"),
            ),
        }
    }
}

impl Problem {
    /// What the API says went wrong.
    fn of_api(body: Value) -> Problem {
        let code = match body["code"].as_str().unwrap_or_default() {
            "not_found" => NOT_FOUND,
            "conflict" | "idempotency_mismatch" | "precondition_failed" => CONFLICT,
            "unauthenticated" | "forbidden" => exit::FORBIDDEN,
            "unavailable" | "too_many_requests" => UNREACHABLE,
            "invalid" | "too_large" | "unsupported_media_type" => exit::USAGE,
            _ => ERROR,
        };
        let detail = body["detail"].as_str().or(body["title"].as_str()).unwrap_or("failed").to_owned();
        Problem { body: Some(Box::new(body)), ..Problem::new(code, detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(args: TargetArgs, variables: &[(&str, &str)], contexts: &str) -> Result<Chosen> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        args.choose(variable, &Contexts::parse(contexts).unwrap())
    }

    fn server(url: &str) -> Place {
        Place::Server(url.to_owned())
    }

    const FILE: &str = "current = \"prod\"\n[contexts.prod]\nserver = \"https://p\"\ntoken = \"t\"\nproduction = true\n\
                        [contexts.here]\nstore = \"x.db\"\n";

    #[test]
    fn options_hold_before_the_environment_and_this_before_a_context() {
        let given = TargetArgs { server: Some("http://a".into()), ..TargetArgs::default() };
        let both = [("LTS_SERVER", "http://b"), ("LTS_STORE", "y.db")];
        assert_eq!(choose(given, &both, FILE).unwrap().place, server("http://a"));
        let none = TargetArgs::default;
        assert_eq!(choose(none(), &both[..1], FILE).unwrap().place, server("http://b"));
        assert!(choose(none(), &both, FILE).unwrap_err().message.contains("both set"));
        let chosen = choose(none(), &[], FILE).unwrap();
        assert_eq!((chosen.place, chosen.token.as_deref(), chosen.production), (server("https://p"), Some("t"), true));
        let other = choose(none(), &[("LTS_CONTEXT", "here")], FILE).unwrap();
        assert_eq!((other.place, other.production), (Place::Store(parse_store("x.db")), false));
        assert_eq!(choose(none(), &[], "").unwrap().place, Place::Store(parse_store(STORE_DEFAULT)));
        let unknown = TargetArgs { context: Some("prd".into()), ..none() };
        assert!(choose(unknown, &[], FILE).unwrap_err().message.contains("did you mean prod"));
    }

    #[test]
    fn an_address_that_cannot_be_one_is_refused_without_repeating_it() {
        assert_eq!(base_of("http://h:1/lts/").unwrap(), "http://h:1/lts");
        for text in ["h:1", "ftp://h", "http://me:secret@h", "http://a b"] {
            let problem = base_of(text).unwrap_err();
            assert!(problem.code == exit::USAGE && !problem.message.contains("secret"), "{problem:?}");
        }
    }
}
