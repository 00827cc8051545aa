//! What a task of the HTTP executor says, what a service is, and how a run is found again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::protocol::Protocol;
use super::secret::Secret;
use crate::error::{Error, Result};
use crate::executor::Run;
use crate::task::{Handle, Name, TaskId};

/// A job of a remote service: the payload of a task of the HTTP executor.
///
/// ```
/// use light_task_scheduler::NewTask;
/// use light_task_scheduler::executor::http::HttpJob;
///
/// # fn main() -> Result<(), light_task_scheduler::Error> {
/// let job = HttpJob::new("tiles")?.path("/processes/render").input(&serde_json::json!({"zoom": 7}))?;
/// let task = NewTask::new("http", &job)?;
/// # let _ = task;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpJob {
    /// A service of the executor's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// Instead of a service: a [preset](Protocol::preset), with `url`. Only where the configuration lets tasks choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Where the service of `preset` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What goes behind the URL of the endpoint. Default: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What the job works on. Default: `null`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub input: Value,
}

impl HttpJob {
    /// A job of a service of the executor's configuration.
    pub fn new(service: &str) -> Result<Self> {
        Ok(HttpJob { service: Some(Name::new(service)?), ..HttpJob::default() })
    }

    /// A job of the service at this URL, which is spoken to as the preset says.
    pub fn at(preset: &str, url: impl Into<String>) -> Self {
        HttpJob { preset: Some(preset.to_owned()), url: Some(url.into()), ..HttpJob::default() }
    }

    /// What goes behind the endpoint's URL.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// What the job works on.
    pub fn input<T: Serialize + ?Sized>(mut self, input: &T) -> Result<Self> {
        self.input = serde_json::to_value(input).map_err(|e| Error::invalid(format!("the input is no JSON: {e}")))?;
        Ok(self)
    }

    /// Refuses what names no service or two.
    pub fn check(&self) -> Result<()> {
        match (&self.service, &self.preset, &self.url) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => {}
            _ => return Err(Error::invalid("an HTTP job needs either `service`, or `preset` and `url`")),
        }
        if !(self.path.is_empty() || self.path.starts_with('/')) {
            return Err(Error::invalid(format!("the path `{}` does not begin with `/`", self.path)));
        }
        Ok(())
    }
}

/// A remote service that tasks can name.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Where it is: one URL or several that take the same jobs; one that does not answer is left alone for a while. Which of
    /// them a start goes to follows from its key. If that one has no room the next one is tried, unless the service is
    /// [idempotent](super::Submit::idempotent) and cannot be asked for the job of a key: what a dead scheduler has started is
    /// then found at one place only, and the task waits for its next claim, which goes elsewhere.
    pub endpoints: Vec<String>,
    /// Sent with every call to these endpoints, and to nobody else.
    pub headers: BTreeMap<String, Secret>,
    /// By what its callbacks are signed (Standard Webhooks, `whsec_…`). None: its token is enough.
    pub signing: Option<Secret>,
}

impl Service {
    /// A service that is spoken to as a [preset](Protocol::preset) says.
    pub fn preset<S: Into<String>>(name: &str, endpoints: impl IntoIterator<Item = S>) -> Result<Self> {
        Ok(Service::new(Protocol::preset(name)?, endpoints))
    }

    /// A service that is spoken to like this.
    pub fn new<S: Into<String>>(protocol: Protocol, endpoints: impl IntoIterator<Item = S>) -> Self {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Service { protocol, endpoints, headers: BTreeMap::new(), signing: None }
    }

    /// Sends a header with every call.
    #[must_use]
    pub fn header(mut self, name: &str, value: Secret) -> Self {
        self.headers.insert(name.to_owned(), value);
        self
    }
}

/// What a [`Handle`] of ours holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Found {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) preset: Option<String>,
    pub(super) endpoint: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) path: String,
    /// What the service calls the job. None: its answer was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) job: Option<String>,
    pub(super) namespace: Name,
    pub(super) id: TaskId,
    pub(super) execution: u64,
}

impl Found {
    pub(super) fn new(run: &Run, job: &HttpJob, endpoint: &str) -> Self {
        Found {
            service: job.service.clone(),
            preset: job.preset.clone(),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            path: job.path.clone(),
            job: None,
            namespace: run.namespace.clone(),
            id: run.task.id.clone(),
            execution: run.task.record.execution,
        }
    }

    pub(super) fn read(handle: &Handle) -> Option<Self> {
        serde_json::from_str(handle.as_str()).ok()
    }

    pub(super) fn handle(&self) -> Result<Handle> {
        let text = serde_json::to_string(self).map_err(|e| Error::internal("a handle as JSON").with_source(e))?;
        Handle::new(&text)
    }

    /// As [`Run::execution_name`].
    pub(super) fn name(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.id, self.execution)
    }

    /// Where this endpoint stands among those of the start: the lower, the earlier. It follows from the key, so that every
    /// scheduler tries them in the same order, whatever the order of its configuration.
    pub(super) fn rank(&self) -> String {
        crate::results::short_hash(format!("{} {}", self.key(), self.endpoint).as_bytes())
    }

    /// The same for every repeat of this start, different for every other: 128 bits of a hash of the name, as a header
    /// can carry it, whatever characters the id has.
    pub(super) fn key(&self) -> String {
        crate::results::short_hash(self.name().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_names_one_service() {
        assert!(HttpJob::new("a").unwrap().check().is_ok());
        assert!(HttpJob::at("ogc", "http://host").path("/p").check().is_ok());
        assert!(HttpJob::default().check().is_err());
        assert!(HttpJob { url: Some("http://x".to_owned()), ..HttpJob::new("a").unwrap() }.check().is_err());
        assert!(HttpJob::new("a").unwrap().path("p").check().is_err());
        assert!(serde_json::from_str::<HttpJob>(r#"{"service": "a", "inputs": {}}"#).is_err());
    }
}
