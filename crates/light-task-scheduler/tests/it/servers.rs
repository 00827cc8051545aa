//! The servers that tests talk to. They are started beforehand by the scripts in `scripts/servers`.

use std::env;

/// The URL in a variable that the script of a server prints.
pub(crate) fn url(variable: &str, script: &str) -> String {
    env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `eval \"$(FAST=1 TCP=1 scripts/servers/{script} start DIR)\"` first")
    })
}

/// A name that nothing else in this server has.
pub(crate) fn fresh_name(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::new_v4().simple())
}

/// Every case of the suite ends with a look for contradictions in the stores that it has used. On a thread with a
/// runtime of its own: the test's may be ending.
pub(crate) fn assert_consistent(look: impl AsyncFnOnce() -> Vec<String> + Send) {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(look());
    let problems = std::thread::scope(|scope| scope.spawn(run).join());
    if !std::thread::panicking() {
        assert_eq!(problems.expect("the store can be read"), Vec::<String>::new());
    }
}

/// How many sequences are compared with the model on a server: each takes up to a second there, for most of which
/// a fresh set of tables is made.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
pub(crate) const SERVER_SEQUENCES: u32 = 100;

/// The Docker engine of the tests.
#[cfg(feature = "docker")]
pub(crate) fn docker_engine() -> light_task_scheduler::executor::docker::EngineConfig {
    light_task_scheduler::executor::docker::EngineConfig::new(url("LTS_TEST_DOCKER_HOST", "docker"))
}

/// The image that it has.
#[cfg(feature = "docker")]
pub(crate) fn docker_image() -> String {
    url("LTS_TEST_DOCKER_IMAGE", "docker")
}
