//! A start that is cut off at any step: what it made is found again, runs once, and is never doubled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use light_task_scheduler::executor::docker::{DockerExecutor, DockerSpec, EngineConfig, Volume};
use light_task_scheduler::executor::{Executor, Recovered};
use light_task_scheduler::{Handle, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;

use super::support::{LIMIT, Reports, config, containers, docker, reporter, run_of, sh, writing};
use crate::servers;

/// Where the line to the engine breaks: before a call has reached it, or before its answer has come back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Break {
    Before,
    After,
}

/// A line to the engine that breaks at one call, and with it all later ones. Each call has a connection of its own.
struct Line {
    config: EngineConfig,
    calls: Arc<AtomicUsize>,
    broken: Arc<Notify>,
}

impl Line {
    /// `at`: the call that it breaks at, counted from 0.
    async fn breaking(at: usize, how: Break) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = EngineConfig::new(format!("tcp://{}", listener.local_addr().unwrap()));
        let engine = servers::docker_engine().address.trim_start_matches("unix://").to_owned();
        let line = Line { config, calls: Arc::default(), broken: Arc::default() };
        let (calls, broken) = (line.calls.clone(), line.broken.clone());
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let call = calls.fetch_add(1, Ordering::SeqCst);
                let mut far = UnixStream::connect(&engine).await.unwrap();
                if call < at {
                    tokio::spawn(async move {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    });
                    continue;
                }
                if call == at && how == Break::After {
                    ask(&mut near, &mut far).await;
                }
                broken.notify_one();
            }
        });
        line
    }
}

/// Hands a call on, and waits until the engine has begun to answer.
async fn ask(near: &mut TcpStream, far: &mut UnixStream) {
    let mut answer = [0; 1];
    let mut bytes = vec![0; 64 << 10];
    loop {
        tokio::select! {
            biased;
            answered = far.read(&mut answer) => {
                answered.unwrap();
                return;
            }
            read = near.read(&mut bytes) => {
                let read = read.unwrap();
                if read == 0 {
                    // The caller has given up; the engine has not been asked, or does not matter any more.
                    return;
                }
                far.write_all(&bytes[..read]).await.unwrap();
            }
        }
    }
}

/// A container that notes that it ran.
fn noting(directory: &std::path::Path) -> DockerSpec {
    let source = directory.canonicalize().unwrap().to_str().unwrap().to_owned();
    let volumes = vec![Volume { source, target: "/out".into(), writable: true }];
    DockerSpec { volumes, ..sh("echo ran >>/out/ran; exit 0") }
}

fn times_run(directory: &std::path::Path) -> usize {
    std::fs::read_to_string(directory.join("ran")).unwrap_or_default().lines().count()
}

fn open(engine: EngineConfig, directory: &std::path::Path) -> DockerExecutor {
    // The line is a TCP address, whose engine is not taken to see our files: the policy is a text there.
    DockerExecutor::new(config(vec![engine], writing(directory))).unwrap()
}

/// Starts through a line that breaks, dies with it, and has another replica take up what there is. Whether the start
/// got through before.
async fn cut_off(at: usize, how: Break) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let run = run_of("task", &noting(directory.path()));
    let line = Line::breaking(at, how).await;
    let victim = open(line.config.clone(), directory.path());
    let starting = async {
        tokio::select! {
            started = victim.start(run.clone(), reporter().0) => started.is_ok(),
            () = line.broken.notified() => false,
        }
    };
    let through = tokio::time::timeout(LIMIT, starting).await.expect("it starts, or the line breaks");
    // Nothing more comes from it: as a process that was killed.
    drop(victim);
    let heir = open(servers::docker_engine(), directory.path());
    let (reporter, mut reports) = reporter();
    match heir.recover(run.clone(), None, reporter).await {
        Recovered::Attached(handle) => ends_once(&heir, &handle, &mut reports, directory.path()).await,
        Recovered::Gone(_) => {
            assert!(!through, "{at} {how:?}: a container that was started is not found");
            assert_eq!(times_run(directory.path()), 0, "{at} {how:?}: it has run, and is not found");
        }
        Recovered::Unreachable(why) => panic!("{at} {how:?}: the engine is there: {why}"),
    }
    // A container that was made too late to be found is never started.
    for left in containers(&docker(), &run.namespace).await {
        let state = docker().inspect_container(&left, None).await.unwrap().state.unwrap();
        assert_eq!(state.status, Some(bollard::models::ContainerStateStatusEnum::CREATED), "{at} {how:?}");
        docker().remove_container(&left, None).await.unwrap();
    }
    through
}

async fn ends_once(heir: &DockerExecutor, handle: &Handle, reports: &mut Reports, directory: &std::path::Path) {
    assert_eq!(reports.ended().await, Outcome::Succeeded(None));
    assert_eq!(times_run(directory), 1, "it runs once");
    heir.release(handle).await;
}

#[tokio::test]
async fn a_start_that_is_cut_off_at_any_call_is_found_or_was_never_made() {
    const CALLS_MAX: usize = 20;
    for how in [Break::Before, Break::After] {
        let mut at = 0;
        while !cut_off(at, how).await {
            at += 1;
            assert!(at < CALLS_MAX, "a start takes no more calls than that");
        }
        println!("counted: a start cut off {at} times, each time {how:?} a call of its own");
        assert!(at >= 4, "greeting, identity, making and starting are four calls at least");
    }
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_has_an_owner() {
    /// Greeting, identity and making come before it.
    const STARTING: usize = 3;
    let directory = tempfile::tempdir().unwrap();
    let run = run_of("task", &noting(directory.path()));
    let line = Line::breaking(STARTING, Break::After).await;
    let executor = open(line.config.clone(), directory.path());
    let started = executor.start(run.clone(), reporter().0).await;
    assert!(started.is_ok(), "it may run, so somebody must watch it: {started:?}");
    drop(executor);
    let heir = open(servers::docker_engine(), directory.path());
    let (reporter, mut reports) = reporter();
    match heir.recover(run.clone(), None, reporter).await {
        Recovered::Attached(handle) => ends_once(&heir, &handle, &mut reports, directory.path()).await,
        other => panic!("not found: {other:?}"),
    }
}
