//! `lts doctor`: whether what lts needs is there and in order, and what to do where it is not.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use light_task_scheduler::{Clock, SystemClock, Timestamp};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::target::{Chosen, Place, Target, TargetArgs, task_path};
use crate::exit::{ERROR, FORBIDDEN, OK, Problem, Result};
use crate::output::{self, Form, FormArgs, Listing};
use crate::store_url::{FileUrl, StoreUrl};

/// A clock that is more apart than this confuses people; more than this also leases and deadlines.
const SKEW_WARN: Duration = Duration::from_secs(1);
const SKEW_FAIL: Duration = Duration::from_secs(30);
/// A read or a write that takes longer than this is slow.
const SLOW: Duration = Duration::from_millis(250);
/// Less free disk than this is little, and too little, in bytes (2 GiB and 100 MiB).
const DISK_WARN_BYTES: u64 = 2 << 30;
const DISK_FAIL_BYTES: u64 = 100 << 20;
/// Fewer open files than this are few for a server with many connections, and too few to run tasks.
const FILES_WARN: u64 = 4_096;
const FILES_FAIL: u64 = 256;
/// How long an engine for containers may take to answer.
const ENGINE_WITHIN: Duration = Duration::from_secs(5);

/// Checks what lts needs: store or server, latency, clocks, versions, containers, disk, open files.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts doctor
  lts doctor --server https://lts.example.org --json

To time a write, a held task is submitted and removed again; --no-write leaves that out.
Exit codes: 0 nothing has failed, 1 something has.")]
pub(crate) struct DoctorArgs {
    /// Write nothing
    #[arg(long)]
    no_write: bool,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// What was found, check by check.
#[derive(Debug, Default)]
struct Findings(Vec<Value>);

impl Findings {
    fn add(&mut self, check: &str, level: Level, found: impl Into<String>, advice: &str) {
        let level = match level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        self.0.push(json!({ "check": check, "level": level, "found": found.into(), "advice": advice }));
    }

    fn problem(&mut self, check: &str, problem: &Problem, advice: &str) {
        self.add(check, Level::Fail, &problem.message, advice);
    }

    fn failed(&self) -> bool {
        self.0.iter().any(|finding| finding["level"] == "fail")
    }
}

/// Runs it.
pub(crate) async fn run(args: DoctorArgs) -> Result<u8> {
    let mut findings = Findings::default();
    findings.add("lts", Level::Ok, concat!("version ", env!("CARGO_PKG_VERSION")), "");
    match args.target.chosen() {
        Ok(chosen) => examine(chosen, args.no_write, &mut findings).await,
        Err(problem) => findings.problem("target", &problem, "say by --server or --store what is meant"),
    }
    files(&mut findings);
    Listing::new("check")
        .column("CHECK", |finding| output::text(&finding["check"]))
        .column("", |finding| output::text(&finding["level"]))
        .column("FOUND", |finding| match finding["advice"].as_str() {
            Some("") | None => output::text(&finding["found"]),
            Some(advice) => format!("{}: {advice}", output::text(&finding["found"])),
        })
        .print(whole(args.form.form()), &findings.0)?;
    Ok(if findings.failed() { ERROR } else { OK })
}

fn whole(form: Form) -> Form {
    if form == Form::Wide { Form::Table } else { form }
}

async fn examine(chosen: Chosen, no_write: bool, findings: &mut Findings) {
    if let Place::Store(url) = &chosen.place {
        store(url, findings).await;
    }
    let is_server = matches!(chosen.place, Place::Server(_));
    match Target::open(chosen, false).await {
        Ok(target) => {
            if is_server && !server(&target, findings).await {
                return;
            }
            latency(&target, no_write, findings).await;
            engine(&target, findings).await;
        }
        Err(_) if !is_server => {}
        Err(problem) => findings.problem("server", &problem, "name it as in http://127.0.0.1:7600"),
    }
}

/// Whether the store is there, and of this version.
async fn store(url: &StoreUrl, findings: &mut Findings) {
    match url.inspect().await {
        Ok(inspection) => {
            let found =
                format!("{url}, {} {}, durable: {}", inspection.engine, inspection.version, inspection.durability);
            findings.add("store", Level::Ok, found, "");
            let versions = inspection.schemas.iter().map(|schema| format!("{} {}", schema.component, schema.found));
            let versions = versions.collect::<Vec<_>>().join(", ");
            if inspection.is_current() {
                findings.add("schema", Level::Ok, versions, "");
            } else if inspection.schemas.iter().any(|schema| schema.found > schema.needed) {
                findings.add("schema", Level::Fail, versions, "it is newer than this program; use a newer release");
            } else {
                findings.add("schema", Level::Warn, versions, "it is older; `lts store migrate` brings it up to date");
            }
        }
        Err(problem) => {
            let advice = "--store or LTS_STORE says where it is; `lts dev` makes one";
            findings.problem("store", &problem, advice);
        }
    }
    if let StoreUrl::Sqlite(FileUrl { path, .. }) = url {
        disk(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")), findings);
    }
}

/// Whether the server answers, is of this version, and has our time; whether more can be asked of it.
async fn server(target: &Target, findings: &mut Findings) -> bool {
    let place = target.shown();
    match target.get("/readyz").await {
        Ok(_) => findings.add("server", Level::Ok, format!("{place} is ready"), ""),
        Err(problem) => {
            findings.problem("server", &problem, "see that it runs, and what it says of its store");
            return false;
        }
    }
    let capabilities = match target.get("/api/v1/capabilities").await {
        Ok(capabilities) => capabilities,
        Err(problem) if problem.code == FORBIDDEN => {
            findings.problem("token", &problem, "`lts token create` makes one; give it by LTS_TOKEN or --token");
            return false;
        }
        Err(problem) => {
            findings.problem("server", &problem, "is it lts that answers there?");
            return false;
        }
    };
    let role = output::text(&capabilities["caller"]["role"]);
    findings.add("token", Level::Ok, if capabilities["open"] == true { "none needed".to_owned() } else { role }, "");
    let version = output::text(&capabilities["version"]);
    if version == env!("CARGO_PKG_VERSION") {
        findings.add("versions", Level::Ok, format!("the server has {version} too"), "");
    } else {
        findings.add(
            "versions",
            Level::Warn,
            format!("the server has {version}"),
            "use the same release on both sides",
        );
    }
    clocks(target, findings).await;
    true
}

async fn clocks(target: &Target, findings: &mut Findings) {
    let before = SystemClock.now();
    let Ok(stats) = target.get("/api/v1/stats").await else { return };
    let after = SystemClock.now();
    let Some(there) = stats["now"].as_str().and_then(|now| now.parse::<Timestamp>().ok()) else { return };
    let (skew, level) = skew(before, after, there);
    let found = if skew.is_zero() {
        "the same as the server's".to_owned()
    } else {
        format!("{skew:.1?} apart from the server's")
    };
    let advice = if level == Level::Ok { "" } else { "let both hosts follow a time server" };
    findings.add("clock", level, found, advice);
}

/// How far a clock there is from ours, if it was read between two moments here; and how bad that is.
fn skew(before: Timestamp, after: Timestamp, there: Timestamp) -> (Duration, Level) {
    // Saturating: at most one of these is more than nothing.
    let skew = there.since(after).max(before.since(there));
    let level = match skew {
        skew if skew > SKEW_FAIL => Level::Fail,
        skew if skew > SKEW_WARN => Level::Warn,
        _ => Level::Ok,
    };
    (skew, level)
}

/// How long a read and a write take.
async fn latency(target: &Target, no_write: bool, findings: &mut Findings) {
    let since = Instant::now();
    let read = target.get("/api/v1/tasks?limit=1").await;
    timed("read", since.elapsed(), read.map(drop), findings);
    if no_write {
        return;
    }
    let since = Instant::now();
    let held = json!({ "kind": "lts-doctor", "held": true });
    let written = target.post("/api/v1/tasks", Some(&held)).await;
    let took = since.elapsed();
    match written {
        Ok(task) => {
            let id = task["id"].as_str().unwrap_or_default();
            timed("write", took, target.delete(&task_path(id, "")).await, findings);
        }
        Err(problem) if problem.code == FORBIDDEN => {
            let advice = "with this token nothing can be changed; who submits needs the role operator";
            findings.add("write", Level::Warn, problem.message, advice);
        }
        Err(problem) => timed("write", took, Err(problem), findings),
    }
}

fn timed(check: &str, took: Duration, result: Result<()>, findings: &mut Findings) {
    match result {
        Ok(()) if took > SLOW => {
            findings.add(
                check,
                Level::Warn,
                format!("{took:.1?}"),
                "that is slow: look at the disk, the network, the load",
            );
        }
        Ok(()) => findings.add(check, Level::Ok, format!("{took:.1?}"), ""),
        Err(problem) => findings.problem(check, &problem, "the store must be readable and writable"),
    }
}

/// Whether containers can be run from here. A server has engines of its own.
async fn engine(target: &Target, findings: &mut Findings) {
    let Some(opened) = target.opened() else { return };
    let reached = match opened.containers() {
        Ok(engines) => tokio::time::timeout(ENGINE_WITHIN, engines.reach()).await,
        Err(problem) => return findings.problem("docker", &problem, "mend the file, or unset LTS_DOCKER_CONFIG"),
    };
    let advice = "only tasks in containers need one; DOCKER_HOST says where it is";
    match reached {
        Ok(Ok(())) => findings.add("docker", Level::Ok, "an engine answers", ""),
        Ok(Err(error)) => findings.add("docker", Level::Warn, error.to_string(), advice),
        Err(_) => findings.add("docker", Level::Warn, format!("no answer within {ENGINE_WITHIN:?}"), advice),
    }
}

fn disk(directory: &Path, findings: &mut Findings) {
    let Ok(disk) = rustix::fs::statvfs(directory) else { return };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let found = format!("{:.1} GiB free at {}", free as f64 / f64::from(1 << 30), directory.display());
    match free {
        free if free < DISK_FAIL_BYTES => findings.add("disk", Level::Fail, found, "make room: nothing can be stored"),
        free if free < DISK_WARN_BYTES => findings.add("disk", Level::Warn, found, "make room"),
        _ => findings.add("disk", Level::Ok, found, ""),
    }
}

fn files(findings: &mut Findings) {
    // None: no limit.
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let found = format!("{limit} may be open at once");
    match limit {
        limit if limit < FILES_FAIL => findings.add("files", Level::Fail, found, "raise it, as by `ulimit -n 65536`"),
        limit if limit < FILES_WARN => {
            findings.add("files", Level::Warn, found, "few for a server with many connections: `ulimit -n 65536`");
        }
        _ => findings.add("files", Level::Ok, found, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_as_far_apart_as_it_cannot_have_been_read_in_between() {
        let at = Timestamp::from_micros;
        let apart = |there| skew(at(100_000_000), at(101_000_000), at(there));
        assert_eq!(apart(100_500_000), (Duration::ZERO, Level::Ok));
        assert_eq!(apart(103_000_000), (Duration::from_secs(2), Level::Warn));
        assert_eq!(apart(60_000_000), (Duration::from_secs(40), Level::Fail));
    }
}
