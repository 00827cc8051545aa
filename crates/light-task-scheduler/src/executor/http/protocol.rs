//! How a remote service is spoken to: a [`Protocol`], which is data, and what an answer means by it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::template;
use crate::error::{Error, Result};
use crate::task::{Failure, FailureKind, Outcome, Payload, Progress};

/// How one kind of job service is spoken to.
///
/// In URLs, headers and bodies these places are filled in: `{+url}` (endpoint and path of the task), `{+endpoint}`,
/// `{+path}`, `{job}` (what the service calls the job; `{+job_path}` and `{+job_query}`: an address before its query and from
/// there on), `{key}` (the idempotency key of this start), `{id}` (of the task),
/// `{+callback}` (where the service may report; what needs it is left out if there is none) and, in bodies, `{input}`.
/// A place with `+` is inserted as it is, one without percent-encoded.
///
/// [`Protocol::preset`] has some ready-made; they are JSON documents of this form (`executor/http/presets/`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// Starts a job.
    pub submit: Submit,
    /// Asks how it stands. None: the service only reports by callbacks, or `submit` waits for the end.
    #[serde(default)]
    pub status: Option<Look>,
    /// Reads its result. None: the result is in the answer or report that tells the end.
    #[serde(default)]
    pub output: Option<Call>,
    /// Where the result is in the answer to `output`, as a JSON pointer. Empty: all of it.
    #[serde(default)]
    pub output_at: String,
    /// Asks the service to stop the job. None: it cannot.
    #[serde(default)]
    pub stop: Option<Call>,
    /// Removes what the service keeps of a job that has ended. None: nothing to do.
    #[serde(default)]
    pub release: Option<Call>,
    /// Finds the job that a start made, by its key, where the answer to `submit` was lost.
    #[serde(default)]
    pub find: Option<Find>,
    /// How a document of the service about a job is read: the answer to `status`, and what it posts to the callback.
    #[serde(default)]
    pub reading: Reading,
}

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// `GET`, `POST`, …
    pub method: Method,
    /// Where to.
    pub url: String,
    /// Beside those of the service's configuration.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What is sent, as JSON.
    #[serde(default)]
    pub body: Option<Value>,
    /// The HTTP statuses that prove that there is no such job (any more).
    #[serde(default)]
    pub gone: Vec<u16>,
}

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    Get,
    /// Makes.
    Post,
    /// Puts in place.
    Put,
    /// Changes.
    Patch,
    /// Removes.
    Delete,
}

/// How a job is started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// The request.
    pub call: Call,
    /// Where the answer tells what the job is called; the first that is there counts.
    #[serde(default)]
    pub job: Vec<JobName>,
    /// The HTTP statuses that mean that the job has been done already, with its result as the body.
    #[serde(default)]
    pub done: Vec<u16>,
    /// The service takes `{key}` (in a header or the body) as an idempotency key: the same request again answers with
    /// the same job. Only then, or with `find`, a start whose answer was lost can be made again without doubling it.
    #[serde(default)]
    pub idempotent: bool,
    /// The answer comes when the job has ended (a synchronous push), with the result as the body of any 2xx.
    #[serde(default)]
    pub waits: bool,
}

/// Where an answer tells what a job is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobName {
    /// In a header: an address, relative to that of the request.
    Header(String),
    /// In the body, at a JSON pointer.
    Pointer(String),
}

/// How a job's state is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// The request.
    pub call: Call,
}

/// How a job is found by its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// The request.
    pub call: Call,
    /// Where the job's name is in the answer, as a JSON pointer; nothing there: there is no such job.
    pub job: String,
}

/// How a document about a job is read. All places are JSON pointers (RFC 6901).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reading {
    /// Where the state is.
    pub state: String,
    /// What its values mean, in lower case. One that is not here means that nobody knows.
    pub states: BTreeMap<String, JobState>,
    /// What it means if there is nothing.
    pub absent: Option<JobState>,
    /// Where an error is: one that is there makes a success a failure.
    pub error: Option<String>,
    /// Where a line for people is; the first that is there counts.
    pub message: Vec<String>,
    /// Where a number from 0 to 100 is.
    pub progress: Option<String>,
    /// Where the result is, if there is no request for it. None: all of the document.
    pub output: Option<String>,
}

/// What a state of a service means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It has not ended.
    Running,
    /// It has succeeded.
    Succeeded,
    /// It has failed.
    Failed,
    /// It was stopped.
    Cancelled,
}

/// What a document says of a job.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    Running(Option<Progress>),
    Ended(Outcome),
    /// Nothing that the protocol knows.
    Unknown(String),
}

impl Protocol {
    /// The names of the presets, in order.
    pub const PRESETS: [&'static str; 5] = ["aip-151", "azure-lro", "ogc", "push", "video-v1"];

    /// A ready-made protocol:
    ///
    /// | name | service |
    /// |---|---|
    /// | `ogc` | OGC API - Processes: `POST …/execution`, job documents, `GET …/results`, `DELETE` |
    /// | `azure-lro` | long-running operations with `Operation-Location` |
    /// | `aip-151` | operations with `name`, `done`, `error`, `response` |
    /// | `video-v1` | the video cutting service of the examples: `/VideoCut`, `/Status`, `/GetOutputVideo`, `/Stop` |
    /// | `push` | one `POST` that is answered when the job has been done |
    ///
    /// Fails as [`NotFound`](crate::ErrorKind::NotFound) for any other name.
    pub fn preset(name: &str) -> Result<Protocol> {
        let json = match name {
            "aip-151" => include_str!("presets/aip-151.json"),
            "azure-lro" => include_str!("presets/azure-lro.json"),
            "ogc" => include_str!("presets/ogc.json"),
            "push" => include_str!("presets/push.json"),
            "video-v1" => include_str!("presets/video-v1.json"),
            _ => {
                let presets = Protocol::PRESETS.join(", ");
                return Err(Error::new(
                    crate::ErrorKind::NotFound,
                    format!("there is no preset `{name}` for HTTP services; there are {presets}"),
                ));
            }
        };
        serde_json::from_str(json).map_err(|e| Error::internal(format!("the preset `{name}`: {e}")))
    }

    /// Refuses a protocol that could never work, all problems in one sentence.
    pub fn check(&self) -> Result<()> {
        let mut problems = Vec::new();
        let calls = [Some(&self.submit.call), self.status.as_ref().map(|look| &look.call), self.output.as_ref()];
        let more = [self.stop.as_ref(), self.release.as_ref(), self.find.as_ref().map(|find| &find.call)];
        for call in calls.into_iter().chain(more).flatten() {
            let texts = std::iter::once(&call.url).chain(call.headers.values());
            problems.extend(texts.filter_map(|text| template::check(text).err()).map(|error| error.to_string()));
        }
        let names_job = !self.submit.job.is_empty();
        if self.submit.waits && (self.status.is_some() || names_job) {
            problems.push("`submit.waits` leaves nothing to ask for: leave `status` and `submit.job` out".to_owned());
        }
        if !self.submit.waits && !names_job {
            problems.push("`submit.job` must tell where the job's name is, unless `submit.waits`".to_owned());
        }
        if self.status.is_some() && self.reading.states.is_empty() && self.reading.absent.is_none() {
            problems.push("`reading.states` must say what the states of the service mean".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid(problems.join("; "))) }
    }
}

impl Reading {
    /// What a document says. With `fetched`, the result is to be asked for by a request of its own.
    pub(super) fn read(&self, document: &Value, fetched: bool) -> Seen {
        let found = document.pointer(&self.state).filter(|_| !self.state.is_empty()).and_then(scalar);
        let known = found.as_ref().map_or(self.absent, |word| self.states.get(&word.to_lowercase()).copied());
        let error = self.error.as_ref().and_then(|at| document.pointer(at)).filter(|error| !is_empty(error));
        let Some(state) = known else {
            return Seen::Unknown(match found {
                Some(word) => format!("the service calls the job `{}`, which the protocol does not know", cut(&word)),
                None => "the answer of the service does not tell the state of the job".to_owned(),
            });
        };
        match (state, error) {
            (JobState::Running, _) => Seen::Running(self.progress(document)),
            (JobState::Succeeded, None) => {
                Seen::Ended(Outcome::Succeeded(if fetched { None } else { Some(self.result(document)) }))
            }
            (JobState::Cancelled, _) => Seen::Ended(Outcome::Failed(Failure::new(
                FailureKind::Cancelled,
                self.said(document, error).unwrap_or_else(|| "the service stopped the job".to_owned()),
            ))),
            (JobState::Succeeded | JobState::Failed, error) => Seen::Ended(Outcome::Failed(Failure::new(
                FailureKind::Error,
                self.said(document, error).unwrap_or_else(|| "the service says that the job has failed".to_owned()),
            ))),
        }
    }

    /// The result that a document brings along.
    pub(super) fn result(&self, document: &Value) -> Payload {
        let result = self.output.as_ref().and_then(|at| document.pointer(at)).unwrap_or(document);
        Payload::from_bytes(result.to_string().into_bytes())
    }

    fn progress(&self, document: &Value) -> Option<Progress> {
        const PERCENT: u64 = 100;
        let done = document.pointer(self.progress.as_ref()?)?.as_f64()?;
        // Rounded, and whatever the service says within bounds.
        let done = (done.round().max(0.0) as u64).min(PERCENT);
        Some(Progress { done, total: PERCENT, message: self.said(document, None).unwrap_or_default() })
    }

    /// What a document says for people.
    fn said(&self, document: &Value, error: Option<&Value>) -> Option<String> {
        let texts = self.message.iter().filter_map(|at| document.pointer(at));
        let said = texts.filter_map(scalar).find(|text| !text.is_empty());
        said.or_else(|| error.map(|error| scalar(error).unwrap_or_else(|| error.to_string())))
    }
}

impl JobName {
    /// What the job is called, if this place of an answer tells it.
    pub(super) fn read(&self, header: impl Fn(&str) -> Option<String>, body: &Value) -> Option<String> {
        match self {
            JobName::Header(name) => header(name),
            JobName::Pointer(at) => body.pointer(at).and_then(scalar),
        }
        .filter(|name| !name.is_empty())
    }
}

/// A result as a payload: JSON as it is, text as a JSON text, anything else refused.
pub(super) fn payload(body: &[u8]) -> Result<Payload> {
    if body.is_empty() {
        return Ok(Payload::from_bytes(*b"null"));
    }
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        return Ok(Payload::from_bytes(body));
    }
    match std::str::from_utf8(body) {
        Ok(text) => Payload::json(text),
        Err(_) => Err(Error::invalid(format!(
            "the service answered {} bytes that are neither JSON nor text; have it store them and answer with an address",
            body.len()
        ))),
    }
}

/// A text, number or truth value as text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

/// The beginning of what a foreign service said.
pub(super) fn cut(text: &str) -> &str {
    const SHOWN_BYTES: usize = 300;
    &text[..text.floor_char_boundary(SHOWN_BYTES.min(text.len()))]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reading(preset: &str) -> (Reading, bool) {
        let protocol = Protocol::preset(preset).unwrap();
        (protocol.reading, protocol.output.is_some())
    }

    fn read(preset: &str, document: Value) -> Seen {
        let (reading, fetched) = reading(preset);
        reading.read(&document, fetched)
    }

    fn failed(seen: &Seen) -> Option<(FailureKind, &str)> {
        match seen {
            Seen::Ended(Outcome::Failed(failure)) => Some((failure.kind, &failure.message)),
            _ => None,
        }
    }

    #[test]
    fn every_preset_is_sound() {
        for name in Protocol::PRESETS {
            Protocol::preset(name).unwrap().check().unwrap();
        }
        assert!(Protocol::preset("ocg").unwrap_err().to_string().contains("azure-lro"));
    }

    #[test]
    fn documents_of_ogc_are_read() {
        let running = read("ogc", json!({"status": "running", "progress": 40, "message": "tiling"}));
        assert_eq!(running, Seen::Running(Some(Progress { done: 40, total: 100, message: "tiling".to_owned() })));
        assert_eq!(read("ogc", json!({"status": "accepted"})), Seen::Running(None));
        assert_eq!(read("ogc", json!({"status": "successful"})), Seen::Ended(Outcome::Succeeded(None)));
        let bad = read("ogc", json!({"status": "failed", "message": "no such layer"}));
        assert_eq!(failed(&bad), Some((FailureKind::Error, "no such layer")));
        assert_eq!(
            failed(&read("ogc", json!({"status": "dismissed"}))).map(|(kind, _)| kind),
            Some(FailureKind::Cancelled)
        );
        assert!(matches!(read("ogc", json!({"status": "sleeping"})), Seen::Unknown(why) if why.contains("sleeping")));
        assert!(matches!(read("ogc", json!([])), Seen::Unknown(_)));
    }

    #[test]
    fn an_operation_is_not_done_until_it_says_so() {
        assert_eq!(read("aip-151", json!({"name": "operations/1"})), Seen::Running(None));
        let done = read("aip-151", json!({"done": true, "response": {"n": 1}}));
        assert_eq!(done, Seen::Ended(Outcome::Succeeded(Some(Payload::from_bytes(*br#"{"n":1}"#)))));
        let bad = read("aip-151", json!({"done": true, "error": {"code": 3, "message": "bad n"}}));
        assert_eq!(failed(&bad), Some((FailureKind::Error, "bad n")));
    }

    #[test]
    fn states_are_read_in_any_case_and_unknown_is_never_success() {
        let done = read("azure-lro", json!({"status": "Succeeded", "result": 7}));
        assert_eq!(done, Seen::Ended(Outcome::Succeeded(Some(Payload::from_bytes(*b"7")))));
        assert!(matches!(read("azure-lro", json!({"status": "Updating"})), Seen::Running(_)));
        assert!(matches!(read("azure-lro", json!({"status": "Sucess"})), Seen::Unknown(_)));
    }

    #[test]
    fn the_video_service_speaks_as_the_original_did() {
        assert!(matches!(read("video-v1", json!({"TaskId": "w", "Status": "分析中", "Reason": ""})), Seen::Running(_)));
        let bad = read("video-v1", json!({"Status": "分析失败", "Reason": "no such file"}));
        assert_eq!(failed(&bad), Some((FailureKind::Error, "no such file")));
        assert_eq!(
            read("video-v1", json!({"Status": "分析成功", "Reason": ""})),
            Seen::Ended(Outcome::Succeeded(None))
        );
    }

    #[test]
    fn a_result_is_json_or_text() {
        assert_eq!(payload(b"{\"a\":1}").unwrap().as_bytes(), b"{\"a\":1}");
        assert_eq!(payload(b"plain").unwrap().as_bytes(), b"\"plain\"");
        assert_eq!(payload(b"").unwrap().as_bytes(), b"null");
        assert!(payload(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn a_protocol_that_cannot_work_names_all_its_problems() {
        let mut bad = Protocol::preset("ogc").unwrap();
        bad.submit.job.clear();
        bad.submit.call.url = "{uri}".to_owned();
        bad.reading = Reading::default();
        let message = bad.check().unwrap_err().to_string();
        for word in ["uri", "submit.job", "reading.states"] {
            assert!(message.contains(word), "{word} is missing in: {message}");
        }
    }
}
