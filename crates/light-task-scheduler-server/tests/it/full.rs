//! A disk that is full: what was accepted stays, what was not is refused with a reason, and all goes on once there is
//! space again.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use light_task_scheduler::{Error, ErrorKind, NewTask, Payload, Result, SqliteStore, State, Store};

use crate::servers::{Home, Kind};
use crate::weather::{PATIENCE, PAUSE, claim_all, complete, register};
use crate::witness::Stopwatch;

/// How large the tasks are that fill the disk, and how many are taken in at once.
const PAYLOAD_BYTES: usize = 200 << 10;
const BATCH: usize = 20;
/// More of them than any of these disks holds.
const BATCHES_MAX: usize = 500;
/// How often it is tried in vain while the disk is full.
const REFUSALS: usize = 3;
/// What is left of the disk for them.
const LEFT_BYTES: usize = 8 << 20;
const FILLER: &str = "filler";
const FILLER_PIECE_BYTES: usize = 1 << 20;

/// A small file system in a directory, which needs the administrator's rights.
#[derive(Debug)]
pub(crate) struct Disk(std::path::PathBuf);

impl Disk {
    pub(crate) fn mount(directory: &Path, megabytes: u32) -> Self {
        let options = format!("size={megabytes}m,mode=755");
        administrator(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", directory.to_str().unwrap()]);
        Disk(directory.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        administrator(&["umount", "-l", self.0.to_str().unwrap()]);
    }
}

fn administrator(command: &[&str]) {
    let command =
        if rustix::process::geteuid().is_root() { command.to_vec() } else { [&["sudo", "-n"], command].concat() };
    let done = Command::new(command[0]).args(&command[1..]).status().unwrap();
    assert!(done.success() || std::thread::panicking(), "{command:?} needs the administrator's rights");
}

/// Fills the disk but for a little; removing the file frees it.
fn fill(directory: &Path) {
    let mut file = File::create(directory.join(FILLER)).unwrap();
    let piece = vec![7; FILLER_PIECE_BYTES];
    while file.write_all(&piece).is_ok() {}
    let written = file.metadata().unwrap().len();
    file.set_len(written.saturating_sub(LEFT_BYTES as u64)).unwrap();
}

fn large(id: usize) -> NewTask {
    let payload = Payload::from_bytes(vec![b'x'; PAYLOAD_BYTES]);
    NewTask::with_payload(light_task_scheduler::Name::new("k").unwrap(), payload).id(&id.to_string()).unwrap()
}

/// An error that says why, and that can be waited out.
fn check(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Full | ErrorKind::Unavailable), "{:?}: {error}", error.kind());
}

/// Repeats a call until the store has recovered.
async fn patiently<T, F: Future<Output = Result<T>>>(mut call: impl FnMut() -> F) -> T {
    let begun = Stopwatch::start();
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) => {
                check(&error);
                assert!(begun.elapsed() < PATIENCE, "{error}");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `free` makes space, and starts the server if it has ended.
async fn is_outlived(store: Arc<dyn Store>, directory: &Path, free: impl FnOnce()) {
    let owner = register(&*store).await;
    fill(directory);
    let (mut accepted, mut refused) = (Vec::new(), None);
    for batch in 0..BATCHES_MAX {
        let ids: Vec<usize> = (batch * BATCH..(batch + 1) * BATCH).collect();
        match store.insert(ids.iter().map(|id| large(*id)).collect()).await {
            Ok(answers) if answers.iter().all(Result::is_ok) => accepted.extend(ids),
            Ok(answers) => refused = answers.into_iter().find_map(Result::err),
            Err(error) => refused = Some(error),
        }
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("the disk is full");
    check(&refused);
    println!("after {} tasks: {refused}", accepted.len());
    // It is still full: nobody is told that something was done which was not.
    for _ in 0..REFUSALS {
        if let Err(error) = store.insert((0..BATCH).map(|id| large(usize::MAX - id)).collect()).await {
            check(&error);
        }
    }
    fs::remove_file(directory.join(FILLER)).unwrap();
    free();
    patiently(|| store.insert(vec![large(usize::MAX / 2)])).await.remove(0).unwrap();
    let ids: Vec<_> = accepted.iter().map(|id| large(*id).id.unwrap()).collect();
    for ids in ids.chunks(100) {
        assert!(patiently(|| store.get(ids)).await.iter().all(Option::is_some), "what was accepted is there");
    }
    let claimed = claim_all(&*store, owner).await;
    assert!(claimed.len() > accepted.len() && claimed.iter().all(|task| task.record.run == 1));
    let changes = claimed.iter().map(complete).collect::<Vec<_>>();
    let answers = patiently(|| store.apply(changes.clone())).await;
    assert!(answers.iter().all(|answer| answer.state() == Some(State::Succeeded)), "{answers:?}");
}

#[tokio::test]
async fn sqlite_outlives_a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    let _disk = Disk::mount(directory.path(), 32);
    let store = SqliteStore::open(directory.path().join("lts.db")).unwrap();
    is_outlived(Arc::new(store), directory.path(), || {}).await;
}

async fn server_outlives(kind: Kind, megabytes: u32) {
    let home = Home::on_a_disk(kind, megabytes);
    let server = home.server().unwrap();
    let store = home.open_at(&server.url).await.unwrap();
    is_outlived(store, server.directory(), || server.start_again()).await;
}

#[tokio::test]
async fn postgres_outlives_a_full_disk() {
    server_outlives(Kind::Postgres, 300).await;
}

#[tokio::test]
async fn mysql_outlives_a_full_disk() {
    server_outlives(Kind::MySql, 900).await;
}
