//! Bodies and parameters, read strictly: an unknown field is refused with what was probably meant.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::problem::{Code, FieldError, Problem, Result};
use crate::duration::{parse_delay, parse_duration};
use crate::output::did_you_mean;

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = media_type(request.headers());
        if !is_json(&kind) {
            return Err(*unknown_type(&kind, "application/json"));
        }
        let bytes = bytes(request, state).await.map_err(|problem| *problem)?;
        parse(&bytes, "").map(Body).map_err(|error| *Problem::of_fields(vec![error]))
    }
}

/// The whole body, if it is not too long.
pub(crate) async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status().as_u16() {
        413 => Problem::new(Code::TooLarge, "the body is larger than this path takes; nothing was done"),
        _ => Problem::invalid(format!("the body cannot be read: {}", rejection.body_text())),
    })
}

/// What the body is said to be, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// `curl -d` says that JSON is a form: whoever sends a form gets an error of its first letter.
pub(crate) fn is_json(kind: &str) -> bool {
    matches!(kind, "" | "application/json" | "application/x-www-form-urlencoded") || kind.ends_with("+json")
}

pub(crate) fn unknown_type(kind: &str, wanted: &str) -> Box<Problem> {
    Problem::new(Code::UnsupportedMediaType, format!("a body of the type {kind:?} is not understood; send {wanted}"))
}

/// Reads JSON. `place` is the pointer of the whole in what was sent.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8], place: &str) -> Result<T, FieldError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = serde_path_to_error::deserialize(&mut reader);
    read.map_err(|error| {
        let path = error.path().to_string();
        let below =
            if path == "." { String::new() } else { format!("/{}", path.replace(['.', '['], "/").replace(']', "")) };
        FieldError { pointer: format!("{place}{below}"), message: in_words(&error.into_inner().to_string()) }
    })
    .and_then(|value| match reader.end() {
        Ok(()) => Ok(value),
        Err(error) => Err(FieldError { pointer: place.to_owned(), message: error.to_string() }),
    })
}

/// Says of an unknown field what was probably meant.
pub(crate) fn in_words(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    match quoted.split_first() {
        Some((word, known)) if unknown => match did_you_mean(word, known) {
            Some(meant) => format!("unknown `{word}`; did you mean `{meant}`?"),
            None => format!("unknown `{word}`; known are {}", known.join(", ")),
        },
        _ => message.to_owned(),
    }
}

/// The parameters of a query, read as strictly.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        read.map(|query| Params(query.0)).map_err(|rejection| {
            let text = rejection.body_text();
            let message = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            let (pointer, message) = message.split_once(": ").unwrap_or(("", message));
            *Problem::of_fields(vec![FieldError { pointer: pointer.to_owned(), message: in_words(message) }])
        })
    }
}

/// A duration: read as `90s`, `1h30m` or ISO 8601 (`PT90S`), written as ISO 8601.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (seconds, micros) = (self.0.as_secs(), self.0.subsec_micros());
        match micros {
            0 => serializer.collect_str(&format_args!("PT{seconds}S")),
            _ => {
                let fraction = format!("{micros:06}");
                serializer.collect_str(&format_args!("PT{seconds}.{}S", fraction.trim_end_matches('0')))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(&plain(text)?).map(Span)
    }
}

/// `PT1M30S`, `P1DT2H`: the same units under other names.
fn plain(text: &str) -> Result<Cow<'_, str>, String> {
    let Some(rest) = text.strip_prefix('P') else { return Ok(text.into()) };
    if text.contains(['Y', 'W']) || text.split('T').next().unwrap_or("").contains('M') {
        return Err(format!("`{text}` is not a duration: years, months and weeks are not taken"));
    }
    Ok(rest.replacen('T', "", 1).to_ascii_lowercase().into())
}

/// Reads how long from now; `0s` is now.
pub(crate) fn delay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    plain(&text).and_then(|text| parse_delay(&text)).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only its fields' names matter")]
    struct Example {
        priority: i32,
        labels: Vec<u8>,
    }

    #[test]
    fn errors_say_where_and_what_was_meant() {
        let error = |json: &str| parse::<Example>(json.as_bytes(), "/3").unwrap_err();
        let unknown = error(r#"{"prioritty": 1}"#);
        assert_eq!(
            (unknown.pointer.as_str(), unknown.message.as_str()),
            ("/3/prioritty", "unknown `prioritty`; did you mean `priority`?")
        );
        assert_eq!(error(r#"{"priority": 1, "labels": [300]}"#).pointer, "/3/labels/0");
        assert!(error(r#"{"priority": 1, "labels": []} x"#).message.contains("trailing"));
    }

    #[test]
    fn durations_are_read_in_both_ways_and_written_in_one() {
        for (text, millis) in [("90s", 90_000), ("PT90S", 90_000), ("PT1M30.5S", 90_500), ("P1DT2H", 93_600_000)] {
            assert_eq!(text.parse::<Span>(), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for bad in ["90", "P1M", "P1W", "PT", "PT0S", "x"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_value(Span(Duration::from_millis(1_500))).unwrap(), "PT1.5S");
        assert_eq!(serde_json::to_value(Span(Duration::from_secs(90))).unwrap(), "PT90S");
    }
}
