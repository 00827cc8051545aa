//! How a container is called: its name and labels follow from the execution alone, so that whoever knows the
//! task finds it again.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::executor::Run;
use crate::results::short_hash;
use crate::task::{Handle, Name, TaskId};

/// The label by which all containers of an installation are found.
pub(super) const LABEL_NAMESPACE: &str = "lts.namespace";
const LABEL_TASK: &str = "lts.task";
const LABEL_EXECUTION: &str = "lts.execution";
/// The label that a task's own name for its container becomes.
pub(super) const LABEL_NAME: &str = "lts.name";

/// Which execution a container belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Execution {
    /// The scheduler's namespace, and the installation if it has a name.
    pub(super) namespace: String,
    pub(super) id: TaskId,
    pub(super) execution: u64,
}

impl Execution {
    pub(super) fn of(run: &Run, installation: &str) -> Self {
        Execution {
            namespace: full_namespace(&run.namespace, installation),
            id: run.task.id.clone(),
            execution: run.task.record.execution,
        }
    }

    /// The container's name: for people the end of the id, where ids by time differ, and for certainty a hash.
    pub(super) fn container_name(&self) -> String {
        const SHOWN: usize = 24;
        const HASH: usize = 20;
        // The lengths keep the parts apart, whatever is in them.
        let id = self.id.to_string();
        let whole = format!("{}:{}{}:{id}{}", self.namespace.len(), self.namespace, id.len(), self.execution);
        let plain: Vec<char> = id.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect();
        let shown: String = plain[plain.len().saturating_sub(SHOWN)..].iter().collect();
        format!("lts-{shown}-{}-{}", self.execution, &short_hash(whole.as_bytes())[..HASH])
    }

    pub(super) fn labels(&self) -> [(String, String); 3] {
        [
            (LABEL_NAMESPACE.to_owned(), self.namespace.clone()),
            (LABEL_TASK.to_owned(), self.id.to_string()),
            (LABEL_EXECUTION.to_owned(), self.execution.to_string()),
        ]
    }

    /// The execution that labels tell; `None` if the container is none of ours.
    pub(super) fn from_labels(labels: &HashMap<String, String>) -> Option<Self> {
        Some(Execution {
            namespace: labels.get(LABEL_NAMESPACE)?.clone(),
            id: TaskId::new(labels.get(LABEL_TASK)?).ok()?,
            execution: labels.get(LABEL_EXECUTION)?.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Execution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.id, self.execution)
    }
}

/// The namespace of an installation's containers.
pub(super) fn full_namespace(namespace: &Name, installation: &str) -> String {
    if installation.is_empty() { namespace.to_string() } else { format!("{namespace}.{installation}") }
}

/// What a [`Handle`] of ours holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    /// The identity of the engine.
    pub(super) engine: String,
    /// The container's id: given once, to nothing else.
    pub(super) container: String,
    #[serde(flatten)]
    pub(super) execution: Execution,
}

impl Found {
    pub(super) fn handle(&self) -> Result<Handle> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::internal(format!("a handle cannot be written: {error}")).with_source(error))?;
        Handle::new(&text)
    }

    pub(super) fn read(handle: &Handle) -> Result<Self, String> {
        let found: Found = serde_json::from_str(handle.as_str())
            .map_err(|error| format!("{:?} is no handle of a container: {error}", handle.as_str()))?;
        // It becomes a part of a path: no row of a store shall lead us elsewhere.
        if found.container.is_empty() || !found.container.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(format!("{:?} is no id of a container", found.container));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execution(namespace: &str, id: &str, execution: u64) -> Execution {
        Execution { namespace: namespace.to_owned(), id: TaskId::new(id).unwrap(), execution }
    }

    #[test]
    fn names_are_docker_s_and_apart() {
        let all = [
            execution("lts", "a", 1),
            execution("lts", "a", 11),
            execution("lts", "a/1", 1),
            execution("lts/a", "1", 1),
            execution("lts", "../..", 1),
            execution("lts", "%2e-$(x)", 1),
            execution("lts", &"é".repeat(100), 1),
            execution("lts", "0192f0c1-2a3b-7c4d-8e5f-6a7b8c9d0e1f", 1),
        ];
        let names: std::collections::HashSet<_> = all.iter().map(Execution::container_name).collect();
        assert_eq!(names.len(), all.len(), "{names:?}");
        for name in &names {
            assert!(name.len() < 80 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)), "{name}");
        }
        assert!(all[7].container_name().contains("7c4d-8e5f-6a7b8c9d0e1f"), "people find it by the id's end");
    }

    #[test]
    fn labels_lead_back() {
        let execution = execution("lts", "a/b c", 7);
        let labels = HashMap::from(execution.labels());
        assert_eq!(Execution::from_labels(&labels), Some(execution));
        assert_eq!(Execution::from_labels(&HashMap::new()), None);
    }

    #[test]
    fn a_handle_leads_back_and_nowhere_else() {
        let found = Found { engine: "E".into(), container: "0a1b".into(), execution: execution("lts", "a", 1) };
        assert_eq!(Found::read(&found.handle().unwrap()), Ok(found.clone()));
        for bad in ["../../etc", ""] {
            let bad = Found { container: bad.into(), ..found.clone() };
            assert!(Found::read(&bad.handle().unwrap()).is_err());
        }
        assert!(Found::read(&Handle::new("{}").unwrap()).is_err());
    }
}
