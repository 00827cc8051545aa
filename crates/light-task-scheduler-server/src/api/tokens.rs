//! Tokens: who may use the API. They are kept in a file, by their hashes: whoever reads it cannot use them.
//!
//! A token is `lts_` + its id + `_` + its secret. The file is looked at again when it has changed, so that
//! `lts token create` and `lts token revoke` work while a server runs.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use light_task_scheduler::{Clock, Name, SystemClock, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::access::{Caller, Role};
use super::problem::{Code, Problem, Result};
use crate::output::hex;

/// What every token begins with, so that scanners for leaked secrets know it.
const PREFIX: &str = "lts_";
/// How many random bytes name a token, and how many are its secret.
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
/// How old what is known of the file may be.
const FRESH: Duration = Duration::from_secs(1);
/// How long a browser stays signed in.
const SESSION_TTL: Duration = Duration::from_secs(12 * 3_600);
/// Most sessions at once; the oldest end for new ones.
const SESSIONS_MAX: usize = 10_000;
/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Names it.
    pub id: String,
    /// For people: whose it is.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// In which queues; empty: in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<Name>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The SHA-256 of its secret, in hexadecimal.
    secret_sha256: String,
}

impl Token {
    fn caller(&self) -> Caller {
        let queues = (!self.queues.is_empty()).then(|| self.queues.clone().into());
        Caller { name: self.name.as_str().into(), role: self.role, queues }
    }
}

/// A token as it is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// For people: whose it is.
    #[schema(min_length = 1, max_length = 128)]
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// In which queues; empty: in all.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub queues: Vec<Name>,
    /// When it ends; none: never.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

/// The file of tokens.
pub struct TokenFile {
    path: PathBuf,
    known: Mutex<Known>,
    sessions: Mutex<HashMap<[u8; 32], Session>>,
}

/// What is known of the file.
#[derive(Debug, Default)]
struct Known {
    tokens: Arc<HashMap<String, Token>>,
    changed_at: Option<SystemTime>,
    looked_at: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Session {
    token: String,
    ends: Instant,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    tokens: Vec<Token>,
}

impl TokenFile {
    /// The file at this path; it need not exist yet. Fails if what is there cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> light_task_scheduler::Result<Self> {
        let file = TokenFile { path: path.into(), known: Mutex::default(), sessions: Mutex::default() };
        file.tokens()?;
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tokens, oldest first.
    pub fn list(&self) -> light_task_scheduler::Result<Vec<Token>> {
        let mut tokens: Vec<Token> = self.tokens()?.values().cloned().collect();
        tokens.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(tokens)
    }

    /// Makes a token. The text is told this once, and kept nowhere.
    pub fn create(&self, new: NewToken) -> light_task_scheduler::Result<(Token, String)> {
        let now = SystemClock.now();
        if new.name.is_empty() || new.name.len() > NAME_BYTES_MAX || new.name.chars().any(char::is_control) {
            let why = format!("the name of a token has 1 to {NAME_BYTES_MAX} bytes and no control characters");
            return Err(light_task_scheduler::Error::invalid(why));
        }
        if new.expires_at.is_some_and(|at| at <= now) {
            return Err(light_task_scheduler::Error::invalid("the token would have ended already"));
        }
        let (id, secret) = (random_hex(ID_BYTES)?, random_hex(SECRET_BYTES)?);
        let token = Token {
            id: id.clone(),
            name: new.name,
            role: new.role,
            queues: new.queues,
            created_at: now,
            expires_at: new.expires_at,
            secret_sha256: hex(&Sha256::digest(secret.as_bytes())),
        };
        self.change(|tokens| tokens.push(token.clone()))?;
        Ok((token, format!("{PREFIX}{id}_{secret}")))
    }

    /// Ends a token; `false`: there is none with this id. Its sessions end with it.
    pub fn revoke(&self, id: &str) -> light_task_scheduler::Result<bool> {
        let mut found = false;
        self.change(|tokens| {
            let before = tokens.len();
            tokens.retain(|token| token.id != id);
            found = tokens.len() < before;
        })?;
        Ok(found)
    }

    /// Who has this token.
    pub(crate) fn bearer(&self, text: &str) -> Result<Caller> {
        Ok(self.valid(text)?.caller())
    }

    fn valid(&self, text: &str) -> Result<Token> {
        let parts = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        let token = match parts {
            Some((id, secret)) => {
                let found = self.tokens()?.get(id).cloned();
                found.filter(|token| same(&token.secret_sha256, &hex(&Sha256::digest(secret.as_bytes()))))
            }
            None => None,
        };
        let unknown = || Problem::new(Code::Unauthenticated, "this token is not known here, or was revoked");
        let token = token.ok_or_else(unknown)?;
        still_good(&token)?;
        Ok(token)
    }

    /// Signs a browser in with a token: a session's text, and for how long it is good.
    pub(crate) fn sign_in(&self, text: &str) -> Result<(String, Duration, Caller)> {
        let token = self.valid(text)?;
        let session = random_hex(SECRET_BYTES)?;
        let mut sessions = self.sessions();
        let now = Instant::now();
        sessions.retain(|_, session| session.ends > now);
        if sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = sessions.iter().min_by_key(|(_, session)| session.ends).map(|(key, _)| *key)
        {
            sessions.remove(&oldest);
        }
        let caller = token.caller();
        sessions
            .insert(Sha256::digest(session.as_bytes()).into(), Session { token: token.id, ends: now + SESSION_TTL });
        Ok((session, SESSION_TTL, caller))
    }

    /// Who is signed in by this session.
    pub(crate) fn session(&self, text: &str) -> Result<Caller> {
        let key: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let session = self.sessions().get(&key).filter(|session| session.ends > Instant::now()).cloned();
        let over = || Problem::new(Code::Unauthenticated, "this session has ended; sign in again");
        let session = session.ok_or_else(over)?;
        let token = self.tokens()?.get(&session.token).cloned().ok_or_else(over)?;
        still_good(&token)?;
        Ok(token.caller())
    }

    /// Ends a session.
    pub(crate) fn sign_out(&self, text: &str) {
        let key: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        self.sessions().remove(&key);
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tokens as the file has them now, or had them a moment ago.
    fn tokens(&self) -> light_task_scheduler::Result<Arc<HashMap<String, Token>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked_at.is_some_and(|at| at.elapsed() < FRESH) {
            return Ok(known.tokens.clone());
        }
        let changed_at = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if known.looked_at.is_none() || changed_at != known.changed_at {
            let read = self.read()?.tokens.into_iter();
            known.tokens = Arc::new(read.map(|token| (token.id.clone(), token)).collect());
            known.changed_at = changed_at;
        }
        known.looked_at = Some(Instant::now());
        Ok(known.tokens.clone())
    }

    fn read(&self) -> light_task_scheduler::Result<Content> {
        let failed = |why: String| {
            light_task_scheduler::Error::invalid(format!("the file of tokens {}: {why}", self.path.display()))
        };
        match std::fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Content::default()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Writes it anew, whole or not at all, readable by its owner only; one writer at a time, also of several processes.
    fn change(&self, change: impl FnOnce(&mut Vec<Token>)) -> light_task_scheduler::Result<()> {
        let failed = |error: std::io::Error| {
            let path = self.path.display();
            light_task_scheduler::Error::invalid(format!("cannot write the file of tokens {path}: {error}"))
        };
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut lock = self.path.clone().into_os_string();
        lock.push(".lock");
        let lock = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(lock).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut content = self.read()?;
        change(&mut content.tokens);
        // Made with the rights 0600.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        let text = serde_json::to_vec_pretty(&content)
            .map_err(|error| light_task_scheduler::Error::internal(format!("tokens cannot be written: {error}")))?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        // Whatever the clock of the file system says: it is read again.
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Known::default();
        Ok(())
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

fn still_good(token: &Token) -> Result<()> {
    match token.expires_at {
        Some(at) if at <= SystemClock.now() => {
            Err(Problem::new(Code::Unauthenticated, format!("the token `{}` has ended at {at}", token.name)))
        }
        _ => Ok(()),
    }
}

fn random_hex(bytes: usize) -> light_task_scheduler::Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(|error| {
        light_task_scheduler::Error::internal(format!("the system gives no random numbers: {error}"))
    })?;
    Ok(hex(&random))
}

/// Whether they are equal, in a time that does not tell where they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(role: Role) -> NewToken {
        NewToken { name: "ada".to_owned(), role, queues: Vec::new(), expires_at: None }
    }

    #[test]
    fn a_token_is_known_by_its_secret_and_by_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = TokenFile::open(directory.path().join("tokens.json")).unwrap();
        let (token, text) = file.create(new(Role::Operator)).unwrap();
        assert_eq!(file.bearer(&text).unwrap().role, Role::Operator);
        let stored = std::fs::read_to_string(file.path()).unwrap();
        assert!(!stored.contains(text.rsplit('_').next().unwrap()), "the secret is in the file");
        let mut forged = text.clone();
        let last = forged.pop().unwrap();
        forged.push(if last == '0' { '1' } else { '0' });
        for wrong in [forged.as_str(), "", "lts_", "lts__", &format!("lts_{}_", token.id), &text[..text.len() - 1]] {
            assert_eq!(file.bearer(wrong).unwrap_err().code, Code::Unauthenticated, "{wrong}");
        }
    }

    #[test]
    fn what_is_revoked_elsewhere_ends_here_and_so_do_its_sessions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.json");
        let (here, elsewhere) = (TokenFile::open(&path).unwrap(), TokenFile::open(&path).unwrap());
        let (token, text) = here.create(new(Role::Viewer)).unwrap();
        let (session, _, _) = here.sign_in(&text).unwrap();
        assert!(here.session(&session).is_ok());
        assert!(elsewhere.revoke(&token.id).unwrap());
        // As if the moment were over for which what is known counts as fresh.
        *here.known.lock().unwrap() = Known::default();
        assert!(here.bearer(&text).is_err());
        assert!(here.session(&session).is_err());
        assert!(!elsewhere.revoke(&token.id).unwrap());
    }

    #[test]
    fn a_session_ends_when_its_browser_signs_out() {
        let directory = tempfile::tempdir().unwrap();
        let file = TokenFile::open(directory.path().join("tokens.json")).unwrap();
        let (_, text) = file.create(new(Role::Admin)).unwrap();
        let (session, _, caller) = file.sign_in(&text).unwrap();
        assert_eq!(caller.role, Role::Admin);
        file.sign_out(&session);
        assert!(file.session(&session).is_err());
    }
}
