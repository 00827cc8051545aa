//! Every executor against the conformance suite: `executors::EXECUTOR::…::CASE`, of which `scripts/test` makes a table.

use std::sync::Arc;

use async_trait::async_trait;
use light_task_scheduler::testing::conformance::executor::{ExecutorHarness, Work};
use light_task_scheduler::{Context, Executor, FunctionExecutor, Name, NewTask, TaskError, executor_conformance};

struct Functions;

#[async_trait]
impl ExecutorHarness for Functions {
    async fn open(&self) -> Arc<dyn Executor> {
        let functions = FunctionExecutor::new()
            .register("succeed", |_: Context, number: u32| async move {
                tokio::task::yield_now().await;
                Ok(number)
            })
            .register("fail", |_: Context, _: u32| async move {
                tokio::task::yield_now().await;
                Err::<(), _>(TaskError::new("it failed"))
            })
            .register("until_stopped", |context: Context, _: u32| async move {
                context.cancelled().await;
                Ok(())
            })
            .register("deaf", |_: Context, _: u32| async move {
                std::future::pending::<()>().await;
                Ok(())
            })
            .register("progress", |context: Context, _: u32| async move {
                tokio::task::yield_now().await;
                context.progress(1, 2, "half");
                Ok(())
            });
        Arc::new(functions)
    }

    fn task(&self, work: Work) -> Option<NewTask> {
        let kind = match work {
            Work::Succeed => "succeed",
            Work::Fail => "fail",
            Work::UntilStopped => "until_stopped",
            Work::Deaf => "deaf",
            Work::Progress => "progress",
            Work::Never => "unheard of",
        };
        Some(NewTask::new(kind, &7).unwrap())
    }

    fn namespace(&self) -> Name {
        Name::new("test").unwrap()
    }
}

executor_conformance!(function, Functions);

/// For the table: this executor has nothing for this case to look at.
#[cfg(any(feature = "docker", feature = "process"))]
fn without(executor: &str, case: &str) -> Option<NewTask> {
    println!("without: {executor} {case}");
    None
}

#[cfg(feature = "callbacks")]
mod http {
    use light_task_scheduler::executor_conformance;

    use crate::http::Remote;

    executor_conformance!(jobs, Remote::new());
}

#[cfg(feature = "docker")]
mod docker {
    use light_task_scheduler::executor::docker::{DockerConfig, DockerExecutor, DockerSpec, EngineConfig, Pull};

    use super::*;
    use crate::servers;

    struct Containers(Name);

    impl Containers {
        fn new() -> Self {
            Containers(Name::new(&servers::fresh_name("suite")).unwrap())
        }
    }

    #[async_trait]
    impl ExecutorHarness for Containers {
        async fn open(&self) -> Arc<dyn Executor> {
            let engine = EngineConfig { capacity: 1_000, ..servers::docker_engine() };
            Arc::new(DockerExecutor::new(DockerConfig { engines: vec![engine], ..DockerConfig::default() }).unwrap())
        }

        fn task(&self, work: Work) -> Option<NewTask> {
            let cmd: &[&str] = match work {
                Work::Succeed => &["true"],
                Work::Fail => &["sh", "-c", "echo it failed >&2; exit 3"],
                Work::UntilStopped => &["sleep", "1000"],
                Work::Deaf => &["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
                // A container cannot say how far it has come.
                Work::Progress => return without("docker", "progress_is_pushed_before_the_end"),
                Work::Never => &["true"],
            };
            let image = if work == Work::Never { "no image".to_owned() } else { servers::docker_image() };
            // As the first process of a container a program hears no signal that it has not asked for.
            let init = work == Work::UntilStopped;
            let spec = DockerSpec { pull: Pull::Never, init, ..DockerSpec::new(image, cmd.iter().copied()) };
            Some(NewTask::new("docker", &spec).unwrap())
        }

        fn namespace(&self) -> Name {
            self.0.clone()
        }
    }

    executor_conformance!(containers, Containers::new());
}

#[cfg(feature = "process")]
mod process {
    use light_task_scheduler::executor::process::{CommandSpec, ProcessConfig, ProcessExecutor};

    use super::*;

    struct Processes(tempfile::TempDir);

    impl Processes {
        fn new() -> Self {
            Processes(tempfile::tempdir().unwrap())
        }
    }

    #[async_trait]
    impl ExecutorHarness for Processes {
        async fn open(&self) -> Arc<dyn Executor> {
            let supervisor = Some(env!("CARGO_BIN_EXE_lts-supervisor").into());
            let config = ProcessConfig { supervisor, ..ProcessConfig::new(self.0.path()) };
            Arc::new(ProcessExecutor::new(config).unwrap())
        }

        fn task(&self, work: Work) -> Option<NewTask> {
            let argv: &[&str] = match work {
                Work::Succeed => &["true"],
                Work::Fail => &["false"],
                Work::UntilStopped => &["sleep", "1000"],
                Work::Deaf => &["sh", "-c", "trap '' TERM; while :; do sleep 1000; done"],
                // A command cannot say how far it has come.
                Work::Progress => return without("process", "progress_is_pushed_before_the_end"),
                Work::Never => &[],
            };
            Some(NewTask::new("process", &CommandSpec::new(argv.iter().copied())).unwrap())
        }

        fn namespace(&self) -> Name {
            // The directory's name is unique among those that exist.
            Name::new(self.0.path().file_name().unwrap().to_str().unwrap()).unwrap()
        }
    }

    executor_conformance!(processes, Processes::new());
}
