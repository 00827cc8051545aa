//! One call to a service: bounded in time and size, only to where calls may go, with secrets only for whom they are meant.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Certificate, Url, redirect};

use super::egress::Rules;
use super::protocol::Method;
use crate::crypto::choose_provider;
use crate::error::{Error, Result};

/// How many redirects of a reading call are followed.
const REDIRECTS_MAX: usize = 5;
/// A connection must be there within this time, so that what was never sent is told from what was never answered.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Makes calls.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    rules: Rules,
    answer_bytes_max: usize,
}

/// What to send.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    /// For everybody.
    pub(super) headers: HeaderMap,
    /// Only for the origin that `secrets_for` names.
    pub(super) secrets: HeaderMap,
    pub(super) secrets_for: String,
    pub(super) body: Option<Vec<u8>>,
    pub(super) within: Duration,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The URL that answered.
    pub(super) url: Url,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// For how long the service wants to be left alone. Only seconds are understood, not dates.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// It must not be sent, now or ever.
    Refused(String),
    /// It was not sent: the service has seen nothing of it.
    Unsent(String),
    /// It may have been sent, and the answer did not come, or not whole.
    Unanswered(String),
}

impl CallError {
    pub(super) fn message(self) -> String {
        match self {
            CallError::Refused(why) | CallError::Unsent(why) | CallError::Unanswered(why) => why,
        }
    }
}

impl Client {
    pub(super) fn new(rules: Rules, answer_bytes_max: usize, roots: &[Vec<u8>]) -> Result<Self> {
        choose_provider();
        let roots = roots.iter().map(|pem| Certificate::from_pem_bundle(pem));
        let roots: Vec<Certificate> = roots.collect::<reqwest::Result<Vec<_>>>().map_err(client_error)?.concat();
        let http = reqwest::Client::builder()
            // A proxy would connect to wherever it likes.
            .no_proxy()
            // Followed here, so that each hop is checked.
            .redirect(redirect::Policy::none())
            .dns_resolver(Arc::new(Guard(rules.clone())))
            .connect_timeout(CONNECT_WITHIN)
            .tls_certs_merge(roots)
            .build()
            .map_err(client_error)?;
        Ok(Client { http, rules, answer_bytes_max })
    }

    /// Refuses what could never be called.
    pub(super) fn check(&self, url: &Url) -> Result<(), CallError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(CallError::Refused(format!("{} is neither http nor https", shown(url))));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let what = format!("{} has a user or password in it; give them as a header, by reference", shown(url));
            return Err(CallError::Refused(what));
        }
        // Names are checked when they are resolved.
        match literal(url) {
            Some(address) if !self.rules.allows(address) => {
                Err(CallError::Refused(format!("{} is an address that the egress policy does not allow", shown(url))))
            }
            _ => Ok(()),
        }
    }

    /// Makes a call and reads its answer whole.
    pub(super) async fn call(&self, request: Request) -> Result<Answer, CallError> {
        let (within, url) = (request.within, shown(&request.url));
        match tokio::time::timeout(within, self.follow(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Unanswered(format!("{url} did not answer within {within:?}"))),
        }
    }

    async fn follow(&self, mut request: Request) -> Result<Answer, CallError> {
        for _ in 0..=REDIRECTS_MAX {
            self.check(&request.url)?;
            let answer = self.send(&request).await?;
            let to = answer.headers.get(LOCATION).and_then(|to| to.to_str().ok());
            let (300..=308, Method::Get, Some(to)) = (answer.status, request.method, to) else { return Ok(answer) };
            request.url = answer
                .url
                .join(to)
                .map_err(|_| CallError::Refused(format!("{} redirects to nowhere", shown(&answer.url))))?;
        }
        Err(CallError::Refused(format!("{} redirects more than {REDIRECTS_MAX} times", shown(&request.url))))
    }

    async fn send(&self, request: &Request) -> Result<Answer, CallError> {
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut sending = self.http.request(method, request.url.clone()).headers(request.headers.clone());
        if origin(&request.url) == request.secrets_for {
            sending = sending.headers(request.secrets.clone());
        }
        if let Some(body) = &request.body {
            sending = sending.header(reqwest::header::CONTENT_TYPE, "application/json").body(body.clone());
        }
        let url = shown(&request.url);
        let mut response = sending.send().await.map_err(|error| call_error(&url, error))?;
        let mut answer = Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: Vec::new(),
            url: response.url().clone(),
        };
        while let Some(chunk) = response.chunk().await.map_err(|error| call_error(&url, error))? {
            if answer.body.len() + chunk.len() > self.answer_bytes_max {
                let bytes = self.answer_bytes_max;
                return Err(CallError::Refused(format!("the answer of {url} has more than {bytes} bytes")));
            }
            answer.body.extend_from_slice(&chunk);
        }
        Ok(answer)
    }
}

fn client_error(error: reqwest::Error) -> Error {
    Error::invalid("cannot make an HTTP client; look at the root certificates").with_source(error)
}

fn call_error(url: &str, error: reqwest::Error) -> CallError {
    // Its own text would show the query of the URL.
    let error = error.without_url();
    let mut causes = Vec::new();
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(Blocked(why)) = cause.downcast_ref() {
            return CallError::Refused(why.clone());
        }
        causes.push(cause.to_string());
        source = cause.source();
    }
    // The innermost says what happened, the outer ones only where.
    let why = format!("{url}: {}", causes.pop().unwrap_or_default());
    if error.is_connect() { CallError::Unsent(why) } else { CallError::Unanswered(why) }
}

/// Resolves names to the addresses that may be connected to.
struct Guard(Rules);

/// A name leads only to addresses that may not be connected to.
#[derive(Debug)]
struct Blocked(String);

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Blocked {}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.0.clone();
        Box::pin(async move {
            // The port is set by whoever connects.
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<_> = found.iter().copied().filter(|address| rules.allows(address.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                let why = format!("{} leads to addresses that the egress policy does not allow", name.as_str());
                return Err(Blocked(why).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// The address in a URL that names none but gives one.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// A URL as it may be shown: without user, query and fragment, which may hold secrets.
pub(super) fn shown(url: &Url) -> String {
    format!("{}{}", origin(url), url.path())
}

/// What is before the path of a URL.
pub(super) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Headers from texts. Fails with the name of the one that is none.
pub(super) fn headers<'a>(texts: impl IntoIterator<Item = (&'a str, String)>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in texts {
        let bad = |_| Error::invalid(format!("the header `{}` has a name or value that no header can have", cut(name)));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad(e.to_string()))?;
        let value = HeaderValue::from_str(&value).map_err(|e| bad(e.to_string()))?;
        headers.insert(header, value);
    }
    Ok(headers)
}

fn cut(name: &str) -> &str {
    super::protocol::cut(name)
}
