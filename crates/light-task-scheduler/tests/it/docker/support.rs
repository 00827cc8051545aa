//! What the tests of the Docker executor share.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::ListContainersOptionsBuilder;
use light_task_scheduler::executor::docker::{
    Bind, ContainerResult, DockerConfig, DockerExecutor, DockerPolicy, DockerSpec, EngineConfig, Pull, Tls,
};
use light_task_scheduler::executor::{Executor, Reporter, Run, StartError, Started};
use light_task_scheduler::store::Said;
use light_task_scheduler::{Failure, Handle, Name, NewTask, Outcome, Payload, Record, Spec, Task, TaskId, Timestamp};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::servers;

/// Long past anything that a test waits for: only a failing test gets here.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
/// How often something is looked at that tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(50);

/// A container of the tests' image.
pub(super) fn spec<S: Into<String>>(cmd: impl IntoIterator<Item = S>) -> DockerSpec {
    DockerSpec { pull: Pull::Never, ..DockerSpec::new(servers::docker_image(), cmd) }
}

pub(super) fn sh(script: &str) -> DockerSpec {
    spec(["sh", "-c", script])
}

pub(super) fn config(engines: Vec<EngineConfig>, policy: DockerPolicy) -> DockerConfig {
    DockerConfig { engines, policy, ..DockerConfig::default() }
}

pub(super) fn executor() -> DockerExecutor {
    executor_with(DockerPolicy::default())
}

pub(super) fn executor_with(policy: DockerPolicy) -> DockerExecutor {
    DockerExecutor::new(config(vec![servers::docker_engine()], policy)).unwrap()
}

/// A policy that lets containers write into this directory.
pub(super) fn writing(directory: &std::path::Path) -> DockerPolicy {
    let path = directory.canonicalize().unwrap();
    DockerPolicy { binds: vec![Bind { path, writable: true }], ..DockerPolicy::default() }
}

/// The engine itself, asked past the executor.
pub(super) fn docker() -> Docker {
    docker_at(&servers::docker_engine().address)
}

pub(super) fn docker_at(address: &str) -> Docker {
    Docker::connect_with_unix(address, LIMIT.as_secs(), bollard::API_DEFAULT_VERSION).unwrap()
}

/// A run in a namespace of its own.
pub(super) fn run_of(id: &str, spec: &DockerSpec) -> Run {
    run_in(&fresh_namespace(), id, 1, spec)
}

pub(super) fn fresh_namespace() -> Name {
    Name::new(&servers::fresh_name("docker")).unwrap()
}

pub(super) fn run_in(namespace: &Name, id: &str, execution: u64, spec: &DockerSpec) -> Run {
    let new = NewTask::new("docker", spec).unwrap();
    let spec = Spec {
        queue: new.queue,
        kind: new.kind,
        payload: new.payload,
        priority: 0,
        created_at: Timestamp::default(),
        options: None,
    };
    let record = Record { run: execution, execution, attempt: 1, ..Record::default() };
    let task = Arc::new(Task { id: TaskId::new(id).unwrap(), spec, record });
    Run { namespace: namespace.clone(), task, claimed_here: false }
}

/// What a run pushes.
pub(super) struct Reports(UnboundedReceiver<Said>);

impl Reports {
    pub(super) async fn ended(&mut self) -> Outcome {
        tokio::time::timeout(LIMIT, async {
            loop {
                if let Said::Ended(outcome) = self.0.recv().await.expect("an end") {
                    return outcome;
                }
            }
        })
        .await
        .expect("the run ends")
    }
}

pub(super) fn reporter() -> (Reporter, Reports) {
    let (push, reports) = unbounded_channel();
    let push = Arc::new(move |said: Said| {
        let _ = push.send(said);
    });
    (Reporter::new(push), Reports(reports))
}

/// Starts a container that must start.
pub(super) async fn start(executor: &DockerExecutor, run: &Run) -> (Handle, Reports) {
    let (reporter, reports) = reporter();
    match executor.start(run.clone(), reporter).await.expect("it starts") {
        Started::Running(handle) => (handle, reports),
        Started::Ended(outcome) => panic!("it ended at once: {outcome:?}"),
    }
}

/// Runs a container to its end, and answers its end and its output.
pub(super) async fn end_of(executor: &DockerExecutor, spec: &DockerSpec) -> (Outcome, Option<ContainerResult>) {
    let run = run_of("task", spec);
    let (handle, mut reports) = start(executor, &run).await;
    let outcome = reports.ended().await;
    let output = executor.output(&handle).await.ok().map(|payload| Payload::parse(&payload).unwrap());
    executor.release(&handle).await;
    (outcome, output)
}

pub(super) fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Succeeded(_) => panic!("it succeeded"),
    }
}

/// Why a start is refused; nothing of it is left.
pub(super) async fn refusal(executor: &DockerExecutor, spec: &DockerSpec) -> Failure {
    let run = run_of("task", spec);
    let failure = match executor.start(run.clone(), reporter().0).await {
        Err(StartError::Refused(failure)) => failure,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(containers(&docker(), &run.namespace).await, Vec::<String>::new(), "a refused start leaves nothing");
    failure
}

/// The ids of all containers of a namespace.
pub(super) async fn containers(docker: &Docker, namespace: &Name) -> Vec<String> {
    let filters = std::collections::HashMap::from([("label", vec![format!("lts.namespace={namespace}")])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    docker.list_containers(Some(options)).await.unwrap().into_iter().map(|found| found.id.unwrap()).collect()
}

/// The one container of a namespace, as `docker inspect` shows it.
pub(super) async fn inspect(docker: &Docker, namespace: &Name) -> ContainerInspectResponse {
    let all = containers(docker, namespace).await;
    let [id] = all.as_slice() else { panic!("not one container: {all:?}") };
    docker.inspect_container(id, None).await.unwrap()
}

/// Waits until something is so that nobody tells.
pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looked = tokio::time::timeout(LIMIT, async {
        while !is_so().await {
            tokio::time::sleep(LOOK).await;
        }
    });
    assert!(looked.await.is_ok(), "not in time: {what}");
}

/// An engine of a test's own.
pub(super) struct OwnEngine {
    directory: tempfile::TempDir,
    /// The variable that sets it up, if any.
    setting: Option<&'static str>,
    pub(super) config: EngineConfig,
}

impl OwnEngine {
    pub(super) fn start(live_restore: bool) -> Self {
        OwnEngine::start_with(live_restore.then_some("LIVE_RESTORE")).0
    }

    /// An engine that is reached through TLS only, and by its socket.
    pub(super) fn start_tls() -> (Self, EngineConfig) {
        let (engine, variables) = OwnEngine::start_with(Some("TLS"));
        let address = variables.lines().find_map(|line| line.strip_prefix("export LTS_TEST_DOCKER_TCP=")).unwrap();
        let file = |name: &str| engine.directory.path().join("e/tls").join(name);
        let tls = Tls { ca: file("ca.pem"), cert: file("client.pem"), key: file("client-key.pem") };
        let config = EngineConfig { tls: Some(tls), ..EngineConfig::new(address) };
        (engine, config)
    }

    fn start_with(setting: Option<&'static str>) -> (Self, String) {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("unix://{}/e/docker.sock", directory.path().display());
        let engine = OwnEngine { directory, setting, config: EngineConfig::new(address) };
        let variables = engine.run("start");
        (engine, variables)
    }

    pub(super) fn docker(&self) -> Docker {
        docker_at(&self.config.address)
    }

    fn run(&self, command: &str) -> String {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/servers/docker");
        let mut run = Command::new(script);
        run.arg(command).arg(self.directory.path().join("e"));
        for setting in ["LIVE_RESTORE", "TCP", "TLS"] {
            run.env_remove(setting);
        }
        run.envs(self.setting.map(|setting| (setting, "1")));
        let output = run.output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn pid(&self) -> String {
        let file = self.directory.path().join("e/dockerd.pid");
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// Kills dockerd as a crash would; what it started lives on for now.
    pub(super) fn kill(&self) {
        let pid = self.pid();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        let lives = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            std::thread::yield_now();
        }
    }

    pub(super) fn start_again(&self) {
        self.run("start");
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.run("stop");
    }
}
