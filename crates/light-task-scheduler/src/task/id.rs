//! How tasks, replicas, queues and kinds are named.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum IdRepr {
    Uuid(Uuid),
    Text(Arc<str>),
}

impl Hash for IdRepr {
    /// In one step for a UUID, which every write of a store looks up.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            IdRepr::Uuid(uuid) => state.write_u128(uuid.as_u128()),
            IdRepr::Text(text) => text.hash(state),
        }
    }
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
    pub(crate) fn from_uuid(uuid: Uuid) -> Self {
        TaskId(IdRepr::Uuid(uuid))
    }

    /// The UUID, if the id is one.
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
#[derive(Clone)]
pub struct Name(NameRepr);

// Every task handed out has two names. Short ones are kept in place: a count that all threads share would cost
// each of them more than the copy.
#[derive(Clone)]
enum NameRepr {
    Short(u8, [u8; SHORT_NAME_BYTES_MAX]),
    Long(Arc<str>),
}

/// The longest name that is kept in place: a name is three words.
const SHORT_NAME_BYTES_MAX: usize = 22;

impl Name {
    /// Checks and keeps a name.
    pub fn new(text: &str) -> Result<Self> {
        check_text("name", text, NAME_BYTES_MAX)?;
        Ok(Name::keep(text))
    }

    fn keep(text: &str) -> Self {
        let mut short = [0; SHORT_NAME_BYTES_MAX];
        match (short.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text.as_bytes());
                Name(NameRepr::Short(len, short))
            }
            _ => Name(NameRepr::Long(text.into())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // It was a text, so it is one.
            NameRepr::Short(len, bytes) => std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default(),
            NameRepr::Long(text) => text,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            NameRepr::Short(len, bytes) => &bytes[..usize::from(*len)],
            NameRepr::Long(text) => text.as_bytes(),
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Name {
    /// As its text, by which it is looked up.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
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
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Name::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A name that is a constant of this crate, known to be valid.
pub(crate) fn name_constant(text: &'static str) -> Name {
    Name::keep(text)
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
    fn short_and_long_names_behave_as_their_texts() {
        let long = "n".repeat(SHORT_NAME_BYTES_MAX);
        let texts = ["a", "b", "é", "nn", &long, &format!("{long}a"), &format!("{long}n"), "数字数字数字数字"];
        let names: Vec<Name> = texts.iter().map(|text| Name::new(text).unwrap()).collect();
        let by_name: std::collections::HashMap<Name, usize> = names.iter().cloned().zip(0..).collect();
        for (one, (name, text)) in names.iter().zip(texts).enumerate() {
            assert_eq!((name.as_str(), by_name[text]), (text, one));
            for (other, other_text) in names.iter().zip(texts) {
                assert_eq!(name.cmp(other), text.cmp(other_text));
                assert_eq!(name == other, text == other_text);
            }
        }
        assert_eq!(size_of::<Name>(), 24);
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
