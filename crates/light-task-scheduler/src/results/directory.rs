//! Results and logs as files in a directory, for people and programs that like to read files.
//!
//! ```text
//! RESULTS/<id>.<execution>.<hash>
//! LOGS/<id>/<execution>.<stream>
//! ```
//!
//! A task id may be any text, so it is written with the letters `a-z0-9-_.` only, every other byte as
//! `%` and two hexadecimal digits. Upper case is escaped too: two ids stay two files also where the file
//! system does not tell `A` from `a`. A name too long for a file ends in `~` and its hash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind as Io, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;

use super::{LOG_CHUNK_BYTES_MAX, LogKey, LogStore, ResultStore, blocking, short_hash, stored, unwritten, verify};
use crate::error::{Error, ErrorKind, Result};
use crate::task::{Payload, ResultRef, TaskId};

/// Longest escaped id; with execution and hash behind it a name stays below the 255 bytes of file systems.
const ESCAPED_BYTES_MAX: usize = 160;
/// How much of a longer one is kept in front of its hash.
const ESCAPED_BYTES_KEPT: usize = 100;
/// Longest file name that is looked for.
const FILE_NAME_BYTES_MAX: usize = 255;
/// Begins the name of a file that is still being written; no key begins with a dot.
const TEMPORARY: &str = ".tmp";

/// Results as files in a directory.
///
/// A result is written to a temporary file, flushed to the disk, renamed, and the directory flushed:
/// it is there whole or not at all, also after a power failure. The key names its content, so that no
/// save can replace a result by another one. A crash while saving leaves a file `.tmp-…`, which may be
/// deleted when nothing runs.
#[derive(Debug, Clone)]
pub struct DirectoryResults {
    root: PathBuf,
}

impl DirectoryResults {
    /// Results in the directory `root`, which is created if it is missing.
    ///
    /// Fails if it can neither be created nor read.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        make_directory(root.clone()).await?;
        Ok(DirectoryResults { root })
    }
}

#[async_trait]
impl ResultStore for DirectoryResults {
    async fn save(&self, id: &TaskId, execution: u64, result: &Payload) -> Result<ResultRef> {
        let key = format!("{}.{execution}.{}", escape(id), short_hash(result.as_bytes()));
        let (root, path, payload) = (self.root.clone(), self.root.join(&key), result.clone());
        blocking(move || {
            write_whole(&root, &path, payload.as_bytes()).map_err(|e| failed("write the result", &path, e))
        })
        .await?;
        Ok(stored(key, result))
    }

    async fn load(&self, result: &ResultRef) -> Result<Payload> {
        let key = match result {
            ResultRef::Inline(payload) => return Ok(payload.clone()),
            ResultRef::Stored { key, .. } => key,
        };
        let missing = || Error::new(ErrorKind::NotFound, format!("no result `{key}` in {}", self.root.display()));
        if !is_key(key) {
            return Err(missing());
        }
        let path = self.root.join(key);
        let read = blocking(move || match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == Io::NotFound => Ok(None),
            Err(e) => Err(failed("read the result", &path, e)),
        });
        let bytes = read.await?.ok_or_else(missing)?;
        verify(result, &bytes)?;
        Ok(Payload::from_bytes(bytes))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        if !is_key(key) {
            return Ok(());
        }
        let path = self.root.join(key);
        blocking(move || match fs::remove_file(&path) {
            Err(e) if e.kind() != Io::NotFound => Err(failed("delete the result", &path, e)),
            _ => Ok(()),
        })
        .await
    }
}

/// Logs as files, one directory per task.
///
/// What was appended survives the end of this process. It is not flushed to the disk at every append:
/// a power failure may cost the last seconds of a log.
#[derive(Debug, Clone)]
pub struct DirectoryLogs {
    root: PathBuf,
}

impl DirectoryLogs {
    /// Logs in the directory `root`, which is created if it is missing.
    ///
    /// Fails if it can neither be created nor read.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        make_directory(root.clone()).await?;
        Ok(DirectoryLogs { root })
    }

    /// Where a log is, or will be.
    pub fn path(&self, log: &LogKey) -> PathBuf {
        self.root.join(escape(&log.id)).join(format!("{}.{}", log.execution, log.stream.as_str()))
    }
}

#[async_trait]
impl LogStore for DirectoryLogs {
    async fn append(&self, log: &LogKey, offset: u64, bytes: &[u8]) -> Result<u64> {
        let (path, log, bytes) = (self.path(log), log.clone(), bytes.to_vec());
        blocking(move || {
            let failed = |e| failed("write the log", &path, e);
            let mut file = open_log(&path).map_err(failed)?;
            let len = file.metadata().map_err(failed)?.len();
            let new = unwritten(&log, len, offset, &bytes)?;
            // At the end that was read, not "append": two writers of one run then write the same bytes to
            // the same place.
            file.seek(SeekFrom::Start(len)).and_then(|_| file.write_all(new)).map_err(failed)?;
            Ok(len + new.len() as u64)
        })
        .await
    }

    async fn read(&self, log: &LogKey, offset: u64, len: usize) -> Result<Vec<u8>> {
        let path = self.path(log);
        let len = len.min(LOG_CHUNK_BYTES_MAX);
        blocking(move || match read_part(&path, offset, len) {
            Err(e) if e.kind() != Io::NotFound => Err(failed("read the log", &path, e)),
            read => Ok(read.unwrap_or_default()),
        })
        .await
    }

    async fn len(&self, log: &LogKey) -> Result<u64> {
        let path = self.path(log);
        blocking(move || match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(e) if e.kind() == Io::NotFound => Ok(0),
            Err(e) => Err(failed("read the log", &path, e)),
        })
        .await
    }

    async fn delete(&self, id: &TaskId) -> Result<()> {
        let path = self.root.join(escape(id));
        blocking(move || match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != Io::NotFound => Err(failed("delete the logs", &path, e)),
            _ => Ok(()),
        })
        .await
    }
}

/// A file name for an id: two ids never have the same, and none leaves its directory.
fn escape(id: &TaskId) -> String {
    let mut name = String::new();
    id.with_str(|text| {
        for (place, byte) in text.bytes().enumerate() {
            match byte {
                // A leading dot would hide the file, or name this directory or the one above.
                b'.' if place == 0 => name.push_str("%2e"),
                byte if is_plain(byte) => name.push(char::from(byte)),
                byte => name.push_str(&format!("%{byte:02x}")),
            }
        }
        if name.len() > ESCAPED_BYTES_MAX {
            name.truncate(ESCAPED_BYTES_KEPT);
            name.push('~');
            name.push_str(&short_hash(text.as_bytes()));
        }
    });
    name
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')
}

/// Whether `save` could have made this key. What it did not make is not there, whatever the disk holds.
fn is_key(key: &str) -> bool {
    let plain = |byte| is_plain(byte) || byte == b'%' || byte == b'~';
    !key.is_empty() && key.len() <= FILE_NAME_BYTES_MAX && !key.starts_with('.') && key.bytes().all(plain)
}

fn write_whole(root: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (mut file, temporary) = create_temporary(root)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The first error is the one to tell; this one may have the same cause.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // The new name is on the disk only once the directory is.
    File::open(root)?.sync_all()
}

fn create_temporary(root: &Path) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let path = root.join(format!("{TEMPORARY}-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            // Left by a process that died, or in use by one on another host: take the next number.
            Err(e) if e.kind() == Io::AlreadyExists => {}
            opened => return opened.map(|file| (file, path)),
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().write(true).create(true).truncate(false).open(path);
    match (open(), path.parent()) {
        (Err(e), Some(parent)) if e.kind() == Io::NotFound => {
            fs::create_dir_all(parent)?;
            open()
        }
        (opened, _) => opened,
    }
}

fn read_part(path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    // Past the end is past all that the system can address, too.
    if offset >= file.metadata()?.len() {
        return Ok(bytes);
    }
    file.seek(SeekFrom::Start(offset))?;
    file.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn make_directory(root: PathBuf) -> Result<()> {
    blocking(move || {
        let made = fs::create_dir_all(&root).and_then(|()| fs::read_dir(&root));
        made.map(drop).map_err(|e| failed("use the directory", &root, e))
    })
    .await
}

fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let (kind, advice) = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => (ErrorKind::Full, "; free some space on that disk"),
        Io::PermissionDenied | Io::ReadOnlyFilesystem => {
            (ErrorKind::Invalid, "; give this user the right to, or name another directory")
        }
        Io::NotADirectory | Io::AlreadyExists => (ErrorKind::Invalid, "; a file is in the way, name another directory"),
        Io::NotFound => (ErrorKind::Unavailable, "; has its directory been removed?"),
        _ => (ErrorKind::Unavailable, ""),
    };
    Error::new(kind, format!("cannot {what} {}: {error}{advice}", path.display())).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        escape(&TaskId::new(text).unwrap())
    }

    #[test]
    fn ids_become_names_that_stay_in_their_directory() {
        assert_eq!(escaped("build-7_a.b"), "build-7_a.b");
        assert_eq!(escaped("../../etc/passwd"), "%2e.%2f..%2fetc%2fpasswd");
        assert_eq!(escaped(".."), "%2e.");
        assert_eq!(escaped("."), "%2e");
        assert_eq!(escaped("A%a"), "%41%25a");
        assert_eq!(escaped("数"), "%e6%95%b0");
    }

    #[test]
    fn long_ids_stay_apart_and_fit_in_a_file_name() {
        let one = escaped(&("é".repeat(99) + "a"));
        let other = escaped(&("é".repeat(99) + "b"));
        assert_ne!(one, other);
        let key = format!("{one}.{}.{}", u64::MAX, short_hash(b""));
        assert!(key.len() <= FILE_NAME_BYTES_MAX && is_key(&key), "{key}");
    }

    #[tokio::test]
    async fn a_key_that_no_save_has_made_reaches_no_file() {
        let outside = tempfile::tempdir().unwrap();
        let results = DirectoryResults::open(outside.path().join("results")).await.unwrap();
        let secret = outside.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        for key in ["../secret", secret.to_str().unwrap(), "", ".", "..", ".tmp-1-1", "a/../../secret"] {
            let reference = stored(key.to_owned(), &Payload::from_bytes(*b"secret"));
            assert_eq!(results.load(&reference).await.unwrap_err().kind(), ErrorKind::NotFound, "{key}");
            results.delete(key).await.unwrap();
        }
        assert!(secret.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DirectoryResults::open(&file).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(file.to_str().unwrap()) && error.to_string().contains("name another"));
    }

    #[tokio::test]
    async fn a_damaged_file_is_not_passed_off_as_the_result() {
        let directory = tempfile::tempdir().unwrap();
        let results = DirectoryResults::open(directory.path()).await.unwrap();
        let id = TaskId::new("a").unwrap();
        let reference = results.save(&id, 1, &Payload::from_bytes(*b"whole")).await.unwrap();
        let ResultRef::Stored { key, .. } = &reference else { panic!("{reference:?}") };
        fs::write(directory.path().join(key), "whale").unwrap();
        assert_eq!(results.load(&reference).await.unwrap_err().kind(), ErrorKind::Internal);
        results.save(&id, 1, &Payload::from_bytes(*b"whole")).await.unwrap();
        results.load(&reference).await.expect("saving again mends it");
    }

    #[tokio::test]
    async fn a_save_leaves_no_temporary_file_and_steps_over_old_ones() {
        let directory = tempfile::tempdir().unwrap();
        let results = DirectoryResults::open(directory.path()).await.unwrap();
        for number in 0..100 {
            fs::write(directory.path().join(format!("{TEMPORARY}-{}-{number}", std::process::id())), "").unwrap();
        }
        results.save(&TaskId::new("a").unwrap(), 1, &Payload::from_bytes(*b"x")).await.unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 101);
    }
}
