//! `If-Match`: what is to be changed only if it still is what the caller has seen.
//!
//! The tag is compared right before the change, not with it: of two callers that change the same thing within the
//! same moment both may be let through. What is not possible in a task's state is refused in any case.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::{self, HeaderName};
use axum::http::request::Parts;
use serde::Serialize;

use super::problem::{Code, Problem, Result};

/// A header that says of which state something is.
pub(crate) type Tagged = [(HeaderName, String); 1];

/// The tag of something: another one for every other value.
pub(crate) fn tag_of(value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).unwrap_or_default();
    format!("\"{}\"", light_task_scheduler::results::short_hash(&json))
}

/// The same as a header.
pub(crate) fn tagged(tag: String) -> Tagged {
    [(header::ETAG, tag)]
}

/// The tags that a caller wants to find; `None`: any.
#[derive(Debug)]
pub(crate) struct IfMatch(Option<Vec<String>>);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Infallible> {
        let mut given = parts.headers.get_all(header::IF_MATCH).iter().peekable();
        let is_given = given.peek().is_some();
        let tags = given.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        // Bytes that are no text are no tag of ours.
        let tags = tags.map(|tag| String::from_utf8_lossy(tag).trim().to_owned()).collect();
        Ok(IfMatch(is_given.then_some(tags)))
    }
}

impl IfMatch {
    /// Whether anything is wanted.
    pub(crate) fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// Refuses a change of something that has another tag; `None`: that is not there.
    pub(crate) fn check(&self, what: std::fmt::Arguments<'_>, tag: Option<&str>) -> Result<()> {
        let Some(wanted) = &self.0 else { return Ok(()) };
        if wanted.iter().any(|wanted| tag.is_some_and(|tag| wanted == "*" || wanted == tag)) {
            return Ok(());
        }
        let why = if tag.is_some() { "has changed meanwhile" } else { "is not there" };
        Err(Problem::new(Code::PreconditionFailed, format!("{what} {why}; nothing was done: read it again")))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn passes(given: &[&str], tag: Option<&str>) -> bool {
        let mut request = Request::builder();
        for value in given {
            request = request.header(header::IF_MATCH, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let Ok(wanted) = IfMatch::from_request_parts(&mut parts, &()).await;
        assert_eq!(wanted.is_given(), !given.is_empty());
        wanted.check(format_args!("it"), tag).is_ok()
    }

    #[tokio::test]
    async fn one_of_the_wanted_tags_must_be_there_to_the_letter() {
        let tag = Some("\"a\"");
        for given in [&[][..], &["\"a\""], &["*"], &["\"b\", \"a\""], &["\"b\"", "\"a\""]] {
            assert!(passes(given, tag).await, "{given:?}");
        }
        for given in [&[""][..], &["\"b\""], &["a"], &["W/\"a\""], &["\"ab\""]] {
            assert!(!passes(given, tag).await, "{given:?}");
        }
        assert!(passes(&[], None).await && !passes(&["*"], None).await);
    }
}
