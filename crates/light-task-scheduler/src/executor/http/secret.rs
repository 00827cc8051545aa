//! Values that are named where they are used and read only when they are sent.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A header's value or a key: as it is, or by reference to where it is kept.
///
/// References are read at every use, so that a rotated secret is in force at once. Neither [`Debug`](fmt::Debug) nor any
/// error shows what is behind one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a secret is a text, { env = \"VARIABLE\" } or { file = \"PATH\" }, each of these with a `prefix` if need be"
)]
pub enum Secret {
    /// The value itself. For what is no secret.
    Text(String),
    /// In an environment variable of the scheduler.
    Env {
        /// The variable.
        env: String,
        /// What goes before it, such as `Bearer `.
        #[serde(default)]
        prefix: String,
    },
    /// In a file, without the line end.
    File {
        /// The file.
        file: PathBuf,
        /// What goes before it.
        #[serde(default)]
        prefix: String,
    },
}

impl Secret {
    /// The content of an environment variable.
    pub fn env(variable: &str) -> Self {
        Secret::Env { env: variable.to_owned(), prefix: String::new() }
    }

    /// The content of a file.
    pub fn file(file: impl Into<PathBuf>) -> Self {
        Secret::File { file: file.into(), prefix: String::new() }
    }

    /// Reads it. Fails with the name of the reference, never with what is behind it. A file may be somewhere slow: it is read
    /// where it holds up nobody.
    pub(super) async fn reveal(&self) -> Result<String> {
        match self {
            Secret::Text(text) => Ok(text.clone()),
            Secret::Env { env, prefix } => match std::env::var(env) {
                Ok(value) => Ok(format!("{prefix}{value}")),
                Err(_) => Err(Error::invalid(format!("the environment variable {env} is not set, or is no text"))),
            },
            Secret::File { file, prefix } => {
                let path = file.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
                match read.map_err(std::io::Error::other).flatten() {
                    Ok(value) => Ok(format!("{prefix}{}", value.trim_end_matches(['\r', '\n']))),
                    Err(error) => {
                        Err(Error::invalid(format!("cannot read a secret from {}: {}", file.display(), error.kind())))
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Text(_) => f.write_str("…"),
            Secret::Env { env, .. } => write!(f, "env {env}"),
            Secret::File { file, .. } => write!(f, "file {}", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_slow_to_read_holds_up_nobody() {
        const LIMIT: Duration = Duration::from_secs(10);
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("secret");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let secret = Secret::file(&pipe);
        // If the one thread of this runtime waits for the pipe, nobody is left to write into it.
        let (written, waits) = std::sync::mpsc::channel::<()>();
        let late = pipe.clone();
        let rescue = std::thread::spawn(move || match waits.recv_timeout(LIMIT) {
            Ok(()) => {}
            Err(_) => std::fs::write(late, "too late").unwrap(),
        });
        // Begins only when it is polled, after the one who reads.
        let write = async { tokio::task::spawn_blocking(move || std::fs::write(pipe, "in time")).await };
        let (read, wrote) = tokio::join!(secret.reveal(), write);
        written.send(()).ok();
        assert_eq!(read.unwrap(), "in time");
        wrote.unwrap().unwrap();
        rescue.join().unwrap();
    }

    #[tokio::test]
    async fn a_secret_is_read_and_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        let secret: Secret =
            serde_json::from_value(serde_json::json!({"file": file.path(), "prefix": "Bearer "})).unwrap();
        assert_eq!(secret.reveal().await.unwrap(), "Bearer hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!(!format!("{:?}", Secret::Text("hunter2".to_owned())).contains("hunter2"));
        let missing = Secret::env("LTS_NO_SUCH_VARIABLE").reveal().await.unwrap_err().to_string();
        assert!(missing.contains("LTS_NO_SUCH_VARIABLE"));
        assert!(serde_json::from_str::<Secret>(r#"{"evn": "X"}"#).is_err());
    }
}
