//! Texts with places in braces, and JSON documents made of them. Pure.
//!
//! `{name}` is replaced by a variable, percent-encoded so that it stays one segment of a URL; `{+name}` by the variable
//! as it is (both as in RFC 6570). In a body nothing is encoded. A variable may be unset (there is no callback address,
//! say): what needs it is left out.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What stands in for the places.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables {
    texts: BTreeMap<&'static str, String>,
    /// Stands in for a text that is nothing but `{input}`: any JSON, not only a text.
    input: Option<Value>,
}

/// Every place there is, for those who write protocols.
pub(super) const PLACES: [&str; 10] =
    ["url", "endpoint", "path", "job", "job_path", "job_query", "key", "id", "callback", "input"];

impl Variables {
    pub(super) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.texts.insert(name, value.into());
    }

    pub(super) fn set_input(&mut self, input: Value) {
        self.input = Some(input);
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }
}

/// How a variable is written into a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As a segment of a URL, unless the place begins with `+`.
    Url,
    /// As it is.
    Plain,
}

/// The text with all its places filled; `None` if one of them is unset.
pub(super) fn fill(text: &str, variables: &Variables, encoding: Encoding) -> Option<String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, place, after)) = next_place(rest) {
        filled.push_str(before);
        let (name, raw) = place.strip_prefix('+').map_or((place, false), |name| (name, true));
        let value = variables.text(name)?;
        if raw || encoding == Encoding::Plain {
            filled.push_str(value);
        } else {
            push_encoded(&mut filled, value);
        }
        rest = after;
    }
    filled.push_str(rest);
    Some(filled)
}

/// The document with all its texts filled. A member or element that needs an unset variable is left out, and so is an
/// object of which nothing is left for that reason.
pub(super) fn fill_json(document: &Value, variables: &Variables) -> Option<Value> {
    match document {
        Value::String(text) if text == "{input}" => variables.input.clone(),
        Value::String(text) => fill(text, variables, Encoding::Plain).map(Value::String),
        Value::Array(items) => Some(items.iter().filter_map(|item| fill_json(item, variables)).collect()),
        Value::Object(members) => {
            let fill = |(name, value): (&String, &Value)| Some((name.clone(), fill_json(value, variables)?));
            let filled: Map<String, Value> = members.iter().filter_map(fill).collect();
            (members.is_empty() || !filled.is_empty()).then_some(Value::Object(filled))
        }
        other => Some(other.clone()),
    }
}

/// Refuses places that nothing will ever stand in for.
pub(super) fn check(text: &str) -> Result<()> {
    let mut rest = text;
    while let Some((_, place, after)) = next_place(rest) {
        let name = place.strip_prefix('+').unwrap_or(place);
        if !PLACES.contains(&name) {
            return Err(Error::invalid(format!("`{{{place}}}` in `{text}` stands for nothing; there are {PLACES:?}")));
        }
        rest = after;
    }
    Ok(())
}

/// What is before the first place, the place, and what is after it. Braces around anything but a word are text.
fn next_place(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let open = from + text.get(from..)?.find('{')?;
        let inside = text.get(open + 1..)?;
        let close = inside.find('}')?;
        let place = inside.get(..close)?;
        let name = place.strip_prefix('+').unwrap_or(place);
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Some((text.get(..open)?, place, inside.get(close + 1..)?));
        }
        from = open + 1;
    }
}

fn push_encoded(text: &mut String, value: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn variables() -> Variables {
        let mut variables = Variables::default();
        variables.set("job", "a/b c");
        variables.set("url", "http://host/p");
        variables.set_input(json!({"x": [1, "{job}"]}));
        variables
    }

    #[test]
    fn places_are_filled_and_encoded_where_they_are_asked_to_be() {
        let url = |text| fill(text, &variables(), Encoding::Url);
        assert_eq!(url("{+url}/jobs/{job}").as_deref(), Some("http://host/p/jobs/a%2Fb%20c"));
        assert_eq!(url("{+url}/{+job}:cancel").as_deref(), Some("http://host/p/a/b c:cancel"));
        assert_eq!(fill("{job}", &variables(), Encoding::Plain).as_deref(), Some("a/b c"));
        assert_eq!(url("{callback}"), None);
        assert_eq!(url("{} {\"a\"} {").as_deref(), Some("{} {\"a\"} {"));
    }

    #[test]
    fn what_needs_an_unset_variable_is_left_out() {
        let body = json!({
            "inputs": "{input}",
            "subscriber": {"successUri": "{callback}/succeeded", "failedUri": "{callback}/failed"},
            "kept": {},
            "tags": ["{job}", "{callback}"],
        });
        let filled = fill_json(&body, &variables()).unwrap();
        // What a task hands in is never taken for a template.
        assert_eq!(filled, json!({"inputs": {"x": [1, "{job}"]}, "kept": {}, "tags": ["a/b c"]}));
    }

    #[test]
    fn unknown_places_are_refused() {
        assert!(check("{+url}/{job}").is_ok());
        assert!(check("{url}/{jbo}").unwrap_err().to_string().contains("jbo"));
    }
}
