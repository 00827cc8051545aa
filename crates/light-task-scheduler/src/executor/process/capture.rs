//! Copying what a command writes into its files, up to a limit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::results::LOG_BYTES_MAX;

/// Room for the line that says how much is missing.
const MARKER_BYTES_MAX: u64 = 128;
/// Longest line of complaint kept for the failure's message (1 KiB).
const LINE_BYTES_MAX: usize = 1 << 10;
/// How much is read at once (64 KiB, the size of a pipe).
const BUFFER_BYTES: usize = 64 << 10;

/// One stream of a command on its way into a file.
#[derive(Debug)]
pub(super) struct Capture {
    /// The end of the pipe to read; `None` once everybody has closed the other.
    pub(super) pipe: Option<File>,
    path: PathBuf,
    file: Option<File>,
    /// All that was written to the pipe.
    pub(super) bytes: u64,
    kept: u64,
    /// The end of what was read, to find the last line in.
    tail: Vec<u8>,
}

impl Capture {
    /// Copies from the pipe, which must not block, into a file that is made for the first byte.
    pub(super) fn new(pipe: OwnedFd, path: PathBuf) -> Self {
        Capture { pipe: Some(pipe.into()), path, file: None, bytes: 0, kept: 0, tail: Vec::new() }
    }

    /// Copies once what is there; `false` if nothing was.
    pub(super) fn copy(&mut self) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        let mut buffer = [0; BUFFER_BYTES];
        match pipe.read(&mut buffer) {
            Ok(0) => {
                self.pipe = None;
                false
            }
            Ok(read) => {
                self.take(&buffer[..read]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.pipe = None;
                false
            }
        }
    }

    /// Copies all that is there and says what is missing.
    pub(super) fn finish(&mut self) {
        while self.copy() {}
        let missing = self.bytes - self.kept;
        if missing > 0 {
            let marker = format!("\n[{missing} more bytes of output were not kept; the limit is {LOG_BYTES_MAX}]\n");
            if let Some(file) = &mut self.file {
                let _ = file.write_all(marker.as_bytes());
            }
        }
    }

    /// The last line that is not blank, cut to a bearable length.
    pub(super) fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        line.trim().chars().filter(|c| !c.is_control()).collect()
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(LINE_BYTES_MAX)..]);
        self.tail.drain(..self.tail.len().saturating_sub(LINE_BYTES_MAX));
        let room = (LOG_BYTES_MAX - MARKER_BYTES_MAX).saturating_sub(self.kept);
        let keep = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if keep == 0 {
            return;
        }
        if self.file.is_none() {
            self.file = OpenOptions::new().append(true).create(true).open(&self.path).ok();
        }
        // A full disk loses output, never the command: what is missing is counted and told.
        if let Some(file) = &mut self.file
            && file.write_all(&bytes[..keep]).is_ok()
        {
            self.kept += keep as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(dir: &tempfile::TempDir) -> Capture {
        let pipe = File::open("/dev/null").unwrap();
        Capture::new(pipe.into(), dir.path().join("out"))
    }

    #[test]
    fn nothing_written_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        capture(&dir).finish();
        assert!(!dir.path().join("out").exists());
    }

    #[test]
    fn too_much_is_cut_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut capture = capture(&dir);
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..11 {
            capture.take(&chunk);
        }
        capture.take(b"\n  the last words\n\n");
        capture.finish();
        let kept = std::fs::read(dir.path().join("out")).unwrap();
        assert!(kept.len() as u64 <= LOG_BYTES_MAX);
        assert!(
            String::from_utf8_lossy(&kept).ends_with("more bytes of output were not kept; the limit is 10485760]\n")
        );
        assert_eq!(capture.bytes, (11 << 20) + 19);
        assert_eq!(capture.last_line(), "the last words");
    }
}
