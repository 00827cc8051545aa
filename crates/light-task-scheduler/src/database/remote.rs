//! The way to a server of ours: JSON there and back.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Url, redirect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::runtime;

use crate::crypto::choose_provider;
use crate::error::{Error, ErrorKind, Result};

/// Under which path of a server everything is.
const BASE: &str = "api/v1/";
/// How long to wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long the server may take to answer: longer than any call of ours works.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Most bytes of a body that is made of several items (16 MiB); more are sent in several calls.
const PART_BYTES_MAX: usize = 16 << 20;

/// What stands for a kind of error on the wire.
const CODES: [(&str, ErrorKind); 8] = [
    ("invalid", ErrorKind::Invalid),
    ("not_found", ErrorKind::NotFound),
    ("conflict", ErrorKind::Conflict),
    ("full", ErrorKind::Full),
    ("unavailable", ErrorKind::Unavailable),
    ("incompatible", ErrorKind::Incompatible),
    ("not_registered", ErrorKind::NotRegistered),
    ("internal", ErrorKind::Internal),
];

/// What is wrong with one item of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fault {
    /// To decide on: the code of a problem.
    pub code: String,
    /// What happened, to what, and what to do.
    pub detail: String,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let code = CODES.iter().find(|(_, kind)| *kind == error.kind()).map_or("internal", |(code, _)| code);
        Fault { code: code.to_owned(), detail: error.to_string() }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let kind = CODES.iter().find(|(code, _)| *code == fault.code).map_or(ErrorKind::Internal, |(_, kind)| *kind);
        Error::new(kind, fault.detail)
    }
}

/// Calls a server. Each runtime has its own connections: what drives a connection lives on its runtime, and one that
/// is stuck must not take the heartbeats of another with it.
pub(crate) struct Link {
    base: Url,
    headers: HeaderMap,
    clients: Mutex<HashMap<Option<runtime::Id>, Client>>,
}

impl Link {
    /// The way to the server at `url`, with a token if it asks for one. Nothing is sent yet.
    pub(crate) fn new(url: &str, token: Option<&str>) -> Result<Arc<Self>> {
        let bad = |why: &str| Error::invalid(format!("`{url}` is no URL of a server such as http://host:7600: {why}"));
        let mut base = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad("it begins with neither http:// nor https://"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(Error::invalid("a URL of a server has no user and no password in it; give a token"));
        }
        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let base = base.join(BASE).map_err(|error| bad(&error.to_string()))?;
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Error::invalid("the token has characters that no token has"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Arc::new(Link { base, headers, clients: Mutex::default() }))
    }

    /// Asks what there is at a path.
    pub(crate) async fn read<A: DeserializeOwned>(&self, path: &str) -> Result<A> {
        self.decoded(&self.send(Method::GET, path, Vec::new(), ANSWER_WITHIN).await?)
    }

    /// Sends a request and reads the answer.
    pub(crate) async fn call<Q: Serialize + ?Sized, A: DeserializeOwned>(&self, path: &str, request: &Q) -> Result<A> {
        self.call_within(ANSWER_WITHIN, path, request).await
    }

    /// The same with another bound on the wait for the answer.
    pub(crate) async fn call_within<Q: Serialize + ?Sized, A: DeserializeOwned>(
        &self,
        within: Duration,
        path: &str,
        request: &Q,
    ) -> Result<A> {
        self.decoded(&self.send(Method::POST, path, encoded(request)?, within).await?)
    }

    /// Sends items, in as many calls as they need, and answers for each in their order.
    pub(crate) async fn call_each<Q: Serialize, A: DeserializeOwned>(&self, path: &str, items: &[Q]) -> Result<Vec<A>> {
        let mut answers: Vec<A> = Vec::with_capacity(items.len());
        for body in parts(items)? {
            answers.extend(self.decoded::<Vec<A>>(&self.send(Method::POST, path, body, ANSWER_WITHIN).await?)?);
        }
        if answers.len() != items.len() {
            let (given, asked) = (answers.len(), items.len());
            return Err(Error::internal(format!("the server at {} gave {given} answers for {asked}", self.base)));
        }
        Ok(answers)
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>, within: Duration) -> Result<Vec<u8>> {
        let url = self.base.join(path).map_err(|error| Error::internal(format!("{path} is no path: {error}")))?;
        let request = self.client()?.request(method, url).headers(self.headers.clone()).timeout(within);
        let response = request.header(CONTENT_TYPE, "application/json").body(body).send().await;
        let response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        if (200..300).contains(&status) { Ok(body.to_vec()) } else { Err(self.refused(status, &body)) }
    }

    /// The client of the runtime that asks.
    fn client(&self) -> Result<Client> {
        let runtime = runtime::Handle::try_current().ok().map(|handle| handle.id());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&runtime) {
            return Ok(client.clone());
        }
        choose_provider();
        let client = Client::builder()
            // A proxy would see the token, and a redirect would lead it elsewhere.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| Error::invalid("cannot make an HTTP client").with_source(error))?;
        clients.insert(runtime, client.clone());
        Ok(client)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        let mut innermost: &dyn std::error::Error = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        let why = if error.is_timeout() { "it does not answer in time".to_owned() } else { innermost.to_string() };
        Error::unavailable(format!("cannot reach the server at {}: {why}", self.base))
    }

    /// What the server says is wrong; a proxy in between may say it in another way.
    fn refused(&self, status: u16, body: &[u8]) -> Error {
        let fault: Option<Fault> = serde_json::from_slice(body).ok();
        let detail = match &fault {
            Some(fault) => format!("the server at {} says: {}", self.base, fault.detail),
            None => format!("the server at {} answers with the status {status}", self.base),
        };
        match status {
            401 | 403 => Error::invalid(detail),
            429 | 502..=504 => Error::unavailable(detail),
            404 | 405 if fault.is_none() => {
                Error::new(ErrorKind::Incompatible, format!("{detail}; is it an lts server?"))
            }
            _ => match fault {
                // What it says of what was asked stands for itself.
                Some(fault) => fault.into(),
                None => Error::internal(detail),
            },
        }
    }

    fn decoded<A: DeserializeOwned>(&self, body: &[u8]) -> Result<A> {
        serde_json::from_slice(body).map_err(|error| {
            let what = format!("the server at {} answers what is not understood; is it another version?", self.base);
            Error::new(ErrorKind::Incompatible, what).with_source(error)
        })
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

fn encoded<Q: Serialize + ?Sized>(request: &Q) -> Result<Vec<u8>> {
    serde_json::to_vec(request)
        .map_err(|error| Error::invalid("a request cannot be written as JSON").with_source(error))
}

/// JSON arrays of these items, none larger than it need be.
fn parts<Q: Serialize>(items: &[Q]) -> Result<Vec<Vec<u8>>> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for item in items {
        let item = encoded(item)?;
        match parts.last_mut().filter(|part| part.len() + item.len() < PART_BYTES_MAX) {
            Some(part) => part.push(b','),
            None => parts.push(vec![b'[']),
        }
        if let Some(part) = parts.last_mut() {
            part.extend(item);
        }
    }
    parts.iter_mut().for_each(|part| part.push(b']'));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_sent_in_parts_that_fit() {
        let items = vec!["x".repeat(PART_BYTES_MAX / 3); 7];
        let parts = parts(&items).unwrap();
        let read: Vec<Vec<String>> = parts.iter().map(|part| serde_json::from_slice(part).unwrap()).collect();
        assert_eq!(read.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 1]);
        assert_eq!(read.concat(), items);
    }

    #[test]
    fn a_url_is_that_of_a_server_and_a_token_is_not_shown() {
        let link = Link::new("http://host:7600/lts?x#y", Some("lts_secret")).unwrap();
        assert_eq!(link.base.as_str(), "http://host:7600/lts/api/v1/");
        assert!(!format!("{link:?}").contains("secret"));
        for bad in ["host:7600", "ftp://host", "http://user:word@host", "nothing"] {
            assert_eq!(Link::new(bad, None).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
        assert_eq!(Link::new("http://host", Some("a\nb")).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn every_kind_of_error_comes_back() {
        for (_, kind) in CODES {
            assert_eq!(Error::from(Fault::from(Error::new(kind, "x"))).kind(), kind);
        }
    }

    #[test]
    fn what_a_server_refuses_is_told_from_what_may_succeed_later() {
        let link = Link::new("http://host", None).unwrap();
        let kind = |status, body: &str| link.refused(status, body.as_bytes()).kind();
        assert_eq!(kind(401, r#"{"code":"unauthenticated","detail":"who"}"#), ErrorKind::Invalid);
        assert_eq!(kind(409, r#"{"code":"not_registered","detail":"gone"}"#), ErrorKind::NotRegistered);
        assert_eq!(kind(503, "<html>"), ErrorKind::Unavailable);
        assert_eq!(kind(404, "<html>"), ErrorKind::Incompatible);
        assert_eq!(kind(404, r#"{"code":"not_found","detail":"no task"}"#), ErrorKind::NotFound);
    }
}
