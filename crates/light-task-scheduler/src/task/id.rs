//! How tasks, replicas, queues and kinds are named.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::clock::{Clock, new_uuid};
use crate::error::{Error, Result};

/// Longest task id, in bytes.
pub const TASK_ID_BYTES_MAX: usize = 200;
/// Longest queue, kind or label name, in bytes.
pub const NAME_BYTES_MAX: usize = 100;

/// The id of a task: a UUID made here, or any text of its submitter's choice.
///
/// Text has 1 to [`TASK_ID_BYTES_MAX`] bytes and no control characters. A text that is a UUID in its
/// usual lower-case form is the same id as that UUID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(IdRepr);

// UUIDs are kept as 16 bytes without an allocation: most ids are ours, and a million of them wait.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum IdRepr {
    Uuid(Uuid),
    Text(Arc<str>),
}

impl TaskId {
    /// Checks and keeps a text of the submitter's choice.
    pub fn new(text: &str) -> Result<Self> {
        check_text("task id", text, TASK_ID_BYTES_MAX)?;
        Ok(match Uuid::try_parse(text) {
            Ok(uuid) if is_canonical(&uuid, text) => TaskId(IdRepr::Uuid(uuid)),
            _ => TaskId(IdRepr::Text(text.into())),
        })
    }

    /// A fresh id, ordered by time.
    pub fn generate(clock: &dyn Clock) -> Self {
        TaskId(IdRepr::Uuid(new_uuid(clock)))
    }

    /// The id that is this UUID.
    #[cfg(feature = "sqlite")]
    pub(crate) fn from_uuid(uuid: Uuid) -> Self {
        TaskId(IdRepr::Uuid(uuid))
    }

    /// The UUID, if the id is one.
    #[cfg(feature = "sqlite")]
    pub(crate) fn as_uuid(&self) -> Option<Uuid> {
        match self.0 {
            IdRepr::Uuid(uuid) => Some(uuid),
            IdRepr::Text(_) => None,
        }
    }

    /// Runs `f` on the id as text, without allocating.
    pub fn with_str<R>(&self, f: impl FnOnce(&str) -> R) -> R {
        match &self.0 {
            IdRepr::Uuid(uuid) => f(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
            IdRepr::Text(text) => f(text),
        }
    }
}

fn is_canonical(uuid: &Uuid, text: &str) -> bool {
    uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_str(|text| f.pad(text))
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_str(|text| f.write_str(text))
    }
}

impl std::str::FromStr for TaskId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        TaskId::new(text)
    }
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_str(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TaskId::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<()> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(Error::invalid(format!("a {what} has 1 to {bytes_max} bytes, this one has {}", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(format!("{what} {text:?} has a control character")));
    }
    Ok(())
}

/// The name of a queue, a kind or a label: 1 to [`NAME_BYTES_MAX`] bytes without control characters.
///
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks and keeps a name.
    pub fn new(text: &str) -> Result<Self> {
        check_text("name", text, NAME_BYTES_MAX)?;
        Ok(Name(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Name::new(text)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Name::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A name that is a constant of this crate, known to be valid.
pub(crate) fn name_constant(text: &'static str) -> Name {
    Name(text.into())
}

/// Which replica: a fresh UUIDv7 for every registration, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(Uuid);

impl ReplicaId {
    /// A fresh id.
    pub fn generate(clock: &dyn Clock) -> Self {
        ReplicaId(new_uuid(clock))
    }

    /// The id behind these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        ReplicaId(Uuid::from_bytes(bytes))
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::str::FromStr for ReplicaId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Uuid::try_parse(text).map(ReplicaId).map_err(|_| Error::invalid(format!("{text:?} is not a replica id")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn a_uuid_text_is_the_same_id_as_the_uuid() {
        let id = TaskId::generate(&SystemClock);
        assert_eq!(TaskId::new(&id.to_string()).unwrap(), id);
        let upper = TaskId::new(&id.to_string().to_uppercase()).unwrap();
        assert_ne!(upper, id, "ids are compared as text");
    }

    #[test]
    fn bad_ids_and_names_are_refused() {
        for bad in ["", "a\nb", "\0", &"x".repeat(TASK_ID_BYTES_MAX + 1)] {
            assert!(TaskId::new(bad).is_err(), "{bad:?}");
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        assert!(TaskId::new("数字/'; drop table tasks --").is_ok());
    }
}
