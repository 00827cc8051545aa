//! Jobs of a remote service by `lts`; the scheduler is killed while they run, and replies are lost.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use light_task_scheduler::ResultRef;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::{Place, Said};
use crate::witness::{Moments, Stopwatch};

/// How many jobs there are, and how often the scheduler is killed, unless the variables say otherwise.
const TASKS: (&str, usize) = ("LTS_HTTP_TASKS", 24);
const KILLS: (&str, usize) = ("LTS_HTTP_KILLS", 4);
/// How many lines the output of a job has, and how long it takes for each.
const LINES: usize = 30;
const LINE_TAKES: Duration = Duration::from_millis(100);
/// Jobs at once.
const LIMIT: usize = 8;
/// The latest moment of a kill after the start of the program.
const KILL_MAX: Duration = Duration::from_secs(2);
/// The service accepts one start in this many and says nothing of it.
const LOST_EVERY: usize = 5;
/// Within this time of the last task's end, no job runs that nobody waits for.
const CLEAN_WITHIN: Duration = Duration::from_secs(30);

fn count((variable, otherwise): (&str, usize)) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// A service that speaks as the preset `video-v1` says: a key makes one job, however often it is sent.
#[derive(Clone, Default)]
struct Cutter(Arc<Mutex<Jobs>>);

#[derive(Default)]
struct Jobs {
    all: Vec<Job>,
    by_key: HashMap<String, usize>,
    starts_asked: usize,
    replies_lost: usize,
    most_at_once: usize,
}

struct Job {
    number: usize,
    lines: Vec<String>,
    state: &'static str,
}

const RUNS: &str = "分析中";
const DONE: &str = "分析成功";
const FAILED: &str = "分析失败";

impl Cutter {
    /// Serves on a free port of loopback for as long as the runtime lives.
    fn start(&self, runtime: &Runtime) -> String {
        let router = Router::new()
            .route("/VideoCut", post(cut))
            .route("/Status", post(status))
            .route("/GetOutputVideo", post(output))
            .route("/Stop", post(stop))
            .with_state(self.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().unwrap()
    }

    /// The numbers of the tasks whose jobs run now.
    fn running(&self) -> Vec<usize> {
        self.jobs().all.iter().filter(|job| job.state == RUNS).map(|job| job.number).collect()
    }
}

/// Each third job fails.
fn fails(number: usize) -> bool {
    number % 3 == 2
}

async fn cut(State(cutter): State<Cutter>, headers: HeaderMap, Json(input): Json<Value>) -> Json<Value> {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let (place, loses) = {
        let mut jobs = cutter.jobs();
        jobs.starts_asked += 1;
        let known = jobs.by_key.get(&key).copied();
        let place = known.unwrap_or_else(|| {
            let place = jobs.all.len();
            let number = usize::try_from(input["number"].as_u64().unwrap()).unwrap();
            jobs.all.push(Job { number, lines: Vec::new(), state: RUNS });
            jobs.by_key.insert(key, place);
            jobs.most_at_once = jobs.most_at_once.max(jobs.all.iter().filter(|job| job.state == RUNS).count());
            tokio::spawn(work(cutter.clone(), place));
            place
        });
        let loses = jobs.starts_asked.is_multiple_of(LOST_EVERY);
        jobs.replies_lost += usize::from(loses);
        (place, loses)
    };
    if loses {
        // Ends the connection without a byte of an answer, and says nothing on stderr.
        std::panic::resume_unwind(Box::new("the reply is lost"));
    }
    Json(json!({ "TaskId": place.to_string() }))
}

async fn work(cutter: Cutter, place: usize) {
    for line in 0..LINES {
        tokio::time::sleep(LINE_TAKES).await;
        let mut jobs = cutter.jobs();
        let job = &mut jobs.all[place];
        let number = job.number;
        job.lines.push(format!("line {line} of {number}"));
    }
    let mut jobs = cutter.jobs();
    let job = &mut jobs.all[place];
    job.state = if fails(job.number) { FAILED } else { DONE };
}

/// The job that a request names.
fn named<T>(cutter: &Cutter, body: &Value, read: impl FnOnce(&mut Job) -> T) -> Result<T, StatusCode> {
    let place = body["TaskId"].as_str().and_then(|id| id.parse::<usize>().ok());
    let mut jobs = cutter.jobs();
    place.and_then(|place| jobs.all.get_mut(place)).map(read).ok_or(StatusCode::NOT_FOUND)
}

async fn status(State(cutter): State<Cutter>, Json(body): Json<Value>) -> Result<Json<Value>, StatusCode> {
    let reason = |job: &Job| if job.state == FAILED { format!("{} cannot be cut", job.number) } else { String::new() };
    let answer = |job: &mut Job| json!({ "TaskId": body["TaskId"], "Status": job.state, "Reason": reason(job) });
    named(&cutter, &body, answer).map(Json)
}

async fn output(State(cutter): State<Cutter>, Json(body): Json<Value>) -> Result<Json<Value>, StatusCode> {
    named(&cutter, &body, |job| json!({ "OutputVideo": job.lines.join("\n") })).map(Json)
}

async fn stop(State(cutter): State<Cutter>, Json(body): Json<Value>) -> StatusCode {
    // Nothing is stopped in these tests: it would show as a job that has failed and should not.
    named(&cutter, &body, |job| job.state = FAILED).map_or_else(|missing| missing, |()| StatusCode::OK)
}

fn write_batch(place: &Place, url: &str, tasks: usize) {
    let line = |number: usize| {
        let job = json!({ "preset": "video-v1", "url": url, "input": { "number": number } });
        format!("{}\n", json!({ "http": job, "id": format!("task-{number}") }))
    };
    place.write("f", &(0..tasks).map(line).collect::<String>());
}

/// What must be so at the end, whatever was killed; `survived` are the tasks whose jobs ran while a scheduler died.
fn check(place: &Place, said: &Said, tasks: usize, survived: &HashSet<usize>) {
    let summary = said.json().pop().unwrap_or_else(|| panic!("no summary: {said:?}"));
    let failed = (0..tasks).filter(|number| fails(*number)).count();
    assert_eq!((&summary["succeeded"], &summary["failed"]), (&(tasks - failed).into(), &failed.into()), "{said:?}");
    let all = place.stored();
    assert_eq!(all.len(), tasks);
    for task in all {
        let number: usize = task.id.to_string().strip_prefix("task-").unwrap().parse().unwrap();
        let record = &task.record;
        assert_eq!(record.attempt, 1, "{task:?}");
        let adopted = record.run > record.execution;
        assert!(adopted || !survived.contains(&number), "its job has survived and was not adopted: {task:?}");
        if fails(number) {
            let message = record.failure().map(|failure| failure.message.as_str()).unwrap_or_default();
            assert_eq!(message, format!("{number} cannot be cut"), "{task:?}");
        } else {
            let whole: Vec<String> = (0..LINES).map(|line| format!("line {line} of {number}")).collect();
            let Some(ResultRef::Inline(result)) = record.result() else { panic!("no result: {task:?}") };
            assert_eq!(result.parse::<String>().unwrap(), whole.join("\n"));
        }
    }
}

#[test]
fn a_killed_scheduler_finds_its_remote_jobs_again() {
    let (tasks, kills) = (count(TASKS), count(KILLS));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cutter = Cutter::default();
    let place = Place::new();
    write_batch(&place, &cutter.start(&runtime), tasks);
    let limit = LIMIT.to_string();
    let batch = ["batch", "f", "--concurrency", &limit, "--json"];
    let mut moments = Moments::new();
    let mut survived = HashSet::new();
    let mut survivals = 0;
    for _ in 0..kills {
        let scheduler = place.start(&batch);
        moments.pass(KILL_MAX);
        scheduler.kill();
        let running = cutter.running();
        survivals += running.len();
        survived.extend(running);
    }
    let said = place.lts(&batch);
    check(&place, &said, tasks, &survived);
    let since = Stopwatch::start();
    while !cutter.running().is_empty() {
        assert!(since.elapsed() < CLEAN_WITHIN, "jobs are left that nobody waits for: {:?}", cutter.running());
        std::thread::yield_now();
    }
    let jobs = cutter.jobs();
    let mut numbers: Vec<usize> = jobs.all.iter().map(|job| job.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..tasks).collect::<Vec<_>>(), "each job was made once");
    assert!(jobs.most_at_once <= LIMIT, "{} jobs at once where {LIMIT} may be", jobs.most_at_once);
    assert!(jobs.replies_lost > 0 && survivals > 0, "this run has tried nothing");
    println!(
        "counted: {kills} kills of a scheduler with {tasks} remote jobs: {} starts asked for, {} of their replies lost, \
         {} jobs made; {} of {} whose jobs ran at a kill were adopted, at {survivals} such moments; outputs whole",
        jobs.starts_asked,
        jobs.replies_lost,
        jobs.all.len(),
        survived.len(),
        survived.len(),
    );
}
