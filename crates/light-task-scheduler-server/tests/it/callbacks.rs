//! What a remote service reports of its jobs by itself, to a server that runs: the service speaks as the preset `ogc` says,
//! under a name that leads nowhere, as behind a proxy; the test carries its reports.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use light_task_scheduler::executor::http::webhook;
use light_task_scheduler::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::dev::{ANY, Server};
use crate::support::Place;

/// The name under which services know the server. No Host of this host, and nobody answers there.
const PUBLIC: &str = "http://lts.example";
const KEY: &str = "sixteen characters or more";
const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const MICROS_PER_S: i64 = 1_000_000;
/// Long past what an answer takes that waits for nothing, and sooner than a body is given up.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// The service. Its jobs run until a test ends them.
#[derive(Clone, Default)]
struct Maps(Arc<Mutex<BTreeMap<usize, Job>>>);

#[derive(Clone)]
struct Job {
    /// Where it was asked to report.
    subscriber: Value,
    state: &'static str,
}

impl Maps {
    fn start() -> (Maps, String, Runtime) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let maps = Maps::default();
        let router = Router::new()
            .route("/processes/{process}/execution", post(execute))
            .route("/jobs/{number}", get(state).delete(remove))
            .route("/jobs/{number}/results", get(results))
            .with_state(maps.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind(ANY)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        (maps, url, runtime)
    }

    /// Waits for a job with this number, and answers where it reports.
    fn subscriber(&self, number: usize) -> Value {
        loop {
            if let Some(job) = self.0.lock().unwrap().get(&number) {
                return job.subscriber.clone();
            }
            std::thread::yield_now();
        }
    }

    /// What is answered from now on to whoever asks.
    fn set_state(&self, number: usize, state: &'static str) {
        self.0.lock().unwrap().get_mut(&number).unwrap().state = state;
    }
}

async fn execute(State(maps): State<Maps>, Json(body): Json<Value>) -> (StatusCode, [(&'static str, String); 1]) {
    let number = usize::try_from(body["inputs"]["number"].as_u64().unwrap()).unwrap();
    let job = Job { subscriber: body["subscriber"].clone(), state: "running" };
    maps.0.lock().unwrap().insert(number, job);
    (StatusCode::CREATED, [("location", format!("/jobs/{number}"))])
}

async fn state(State(maps): State<Maps>, Path(number): Path<usize>) -> Result<Json<Value>, StatusCode> {
    let jobs = maps.0.lock().unwrap();
    let job = jobs.get(&number).ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(json!({"jobID": number.to_string(), "status": job.state})))
}

async fn results(Path(number): Path<usize>) -> Json<Value> {
    Json(json!({ "map": number }))
}

async fn remove(State(maps): State<Maps>, Path(number): Path<usize>) -> StatusCode {
    maps.0.lock().unwrap().remove(&number);
    StatusCode::NO_CONTENT
}

/// The path of an address that the service was told.
fn path(subscriber: &Value, which: &str) -> String {
    let url = subscriber[which].as_str().unwrap();
    url.strip_prefix(PUBLIC).unwrap_or_else(|| panic!("{url} is not below {PUBLIC}")).to_owned()
}

/// Carries a report to the server, whatever its address is now; the Host is the one that the service was told.
fn report(server: &Server, path: &str, headers: &str, body: &str) -> (u16, String) {
    server.send("POST", path, &format!("Host: lts.example\r\nContent-Type: application/json\r\n{headers}"), body)
}

/// A job that fails fails for good.
fn task(job: &Value) -> String {
    json!({"kind": "http", "payload": job, "timeout": "60s", "retry": {"max_attempts": 1}}).to_string()
}

#[test]
fn a_report_ends_a_job_whoever_has_started_it() {
    let (maps, url, _runtime) = Maps::start();
    let place = Place::new();
    place.write("key", KEY);
    let dev = ["dev", "--listen", ANY, "--callbacks-url", PUBLIC, "--callbacks-key-file", "key"];
    let server = Server::start(&place, &dev);
    let job =
        |number: u32| json!({"preset": "ogc", "url": url, "path": "/processes/draw", "input": {"number": number}});
    let submit = |server: &Server, number| {
        server.json("POST", "/api/v1/tasks", &task(&job(number)))["id"].as_str().unwrap().to_owned()
    };
    // Whoever asks is told that it runs: only a report can end it.
    let first = submit(&server, 1);
    let told = maps.subscriber(1);
    assert_eq!(report(&server, &path(&told, "inProgressUri"), "", r#"{"progress": 40}"#).0, 204);
    for _ in 0..2 {
        assert_eq!(report(&server, &path(&told, "successUri"), "", "{}"), (204, String::new()));
    }
    let ended = server.ended(&first);
    assert_eq!((&ended["state"], &ended["result"]), (&json!("succeeded"), &json!({"map": 1})), "{ended}");
    assert_eq!(report(&server, &path(&told, "failedUri"), "", "{}").0, 204, "too late, and authentic");
    assert_eq!(server.ended(&first)["state"], "succeeded");

    let second = submit(&server, 2);
    let told = maps.subscriber(2);
    // Until the store has what the service calls the job: before that, nobody could find it again.
    while !place.stored().iter().any(|task| task.id.to_string() == second && task.record.handle().is_some()) {
        std::thread::yield_now();
    }
    // Killed as by a power failure; the next one is somewhere else, and knows the job by its store only.
    drop(server);
    let server = Server::start(&place, &dev);
    assert_eq!(report(&server, &path(&told, "failedUri"), "", r#"{"message": "no such tile"}"#).0, 204);
    let ended = server.ended(&second);
    assert_eq!((&ended["state"], &ended["failure"]["message"]), (&json!("failed"), &json!("no such tile")), "{ended}");
    assert_eq!(ended["attempt"], 1);
}

#[test]
fn a_forged_report_changes_nothing_and_asking_finds_the_end() {
    let (maps, url, _runtime) = Maps::start();
    let place = Place::new();
    place.write("key", KEY).write("signing", SIGNING).write(
        "lts.toml",
        &format!(
            "base_path = \"/lts\"\ntokens = \"tokens.json\"\n[http]\nprivate = true\n\
             [http.callbacks]\nurl = \"{PUBLIC}/lts\"\nkey = {{ file = \"key\" }}\n\
             [http.service.maps]\npreset = \"ogc\"\nendpoints = [\"{url}\"]\nsigning = {{ file = \"signing\" }}\n"
        ),
    );
    let made = place.lts(&["token", "create", "me", "--role", "admin", "--tokens", "tokens.json"]);
    let token = made.stdout.trim();
    let server = Server::start(&place, &["server", "--listen", ANY]);
    let ask = |method, path: &str, body: &str| {
        let (status, answer) = server.ask(method, path, Some(token), body);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let submit = |number: u32| {
        let job = json!({"service": "maps", "path": "/processes/draw", "input": {"number": number}});
        ask("POST", "/lts/api/v1/tasks", &task(&job))["id"].as_str().unwrap().to_owned()
    };
    let (one, two) = (submit(1), submit(2));
    let (success, other) = (path(&maps.subscriber(1), "successUri"), path(&maps.subscriber(2), "successUri"));
    let code = |path: &str| path.rsplit_once('.').unwrap().1.to_owned();
    let forged = success.replace(&code(&success), &code(&other));
    for path in [&forged, "/lts/api/v1/callbacks/x", "/lts/api/v1/callbacks/a.b/succeeded", "/lts/api/v1/callbacks/%00"]
    {
        let (status, answer) = report(&server, path, "", "{}");
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{path}: {e} in {answer}"));
        assert_eq!((status, &answer["code"]), (404, &json!("not_found")), "{path}");
    }
    // Nobody without a token makes the server wait for a body, let alone keep it: this one never comes.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    write!(stream, "POST {forged} HTTP/1.1\r\nHost: lts.example\r\nContent-Length: 4000000\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(ANSWERS_WITHIN)).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head, *b"HTTP/1.1 404");
    // The address alone is not enough where reports are signed; and the signature is for this body.
    let signed = |body: &str| {
        let at = SystemClock.now().as_micros() / MICROS_PER_S;
        let signature = webhook::sign(SIGNING, "m1", at, body.as_bytes()).unwrap();
        format!("webhook-id: m1\r\nwebhook-timestamp: {at}\r\nwebhook-signature: {signature}\r\n")
    };
    assert_eq!(report(&server, &success, "", "{}").0, 401);
    assert_eq!(report(&server, &success, &signed("{ }"), "{}").0, 401);
    assert_eq!(ask("GET", &format!("/lts/api/v1/tasks/{one}"), "")["state"], "running");
    assert_eq!(report(&server, &other, &signed("{}"), "{}").0, 204);
    assert_eq!(ask("GET", &format!("/lts/api/v1/tasks/{two}?wait=60s"), "")["result"], json!({"map": 2}));
    // No report comes: whoever asks is told.
    maps.set_state(1, "successful");
    assert_eq!(ask("GET", &format!("/lts/api/v1/tasks/{one}?wait=60s"), "")["result"], json!({"map": 1}));
}

#[test]
fn what_is_wrong_with_the_settings_is_said_and_no_key_is_shown() {
    let place = Place::new();
    place.write("key", KEY).write("short", "short");
    let config = |table: &str| {
        place.write("lts.toml", &format!("base_path = \"/lts\"\n[http.callbacks]\n{table}\n"));
        let said = place.lts(&["config", "show", "--origin"]);
        (said.code, format!("{}{}", said.stdout, said.stderr))
    };
    let key = format!("key = \"{KEY}\"");
    for (table, why) in [
        (format!("urll = \"{PUBLIC}/lts\""), "did you mean `url`?"),
        (format!("url = \"{PUBLIC}/lts\""), "http.callbacks.key is not"),
        (key.clone(), "http.callbacks.url is not"),
        (format!("url = \"{PUBLIC}\"\n{key}"), "base path /lts"),
        (format!("url = \"{PUBLIC}/lts\"\nkey = {{ fiel = \"key\" }}"), "{ file = \"PATH\" }"),
    ] {
        let (code, said) = config(&table);
        assert_eq!(code, 2, "{table}: {said}");
        assert!(said.contains(why), "{table}: {said}");
    }
    let (code, said) = config(&format!("url = \"{PUBLIC}/lts\"\n{key}"));
    assert!(code == 0 && said.contains(PUBLIC) && !said.contains(KEY), "{said}");
    let mut command = place.command(&["config", "show", "--origin", "--callbacks-url", "https://a.example/lts"]);
    let said = command.env("LTS_CALLBACKS_KEY", KEY).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let row = |name: &str| said.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{said}")).to_owned();
    assert!(row("http.callbacks.url").contains("https://a.example/lts"), "{said}");
    assert!(
        row("http.callbacks.url").contains("command line") && row("http.callbacks.key").contains("LTS_CALLBACKS_KEY")
    );
    assert!(!said.contains(KEY), "{said}");
    // A server does not wait for its first job to find out.
    let dev = |file| place.lts(&["dev", "--listen", ANY, "--callbacks-url", PUBLIC, "--callbacks-key-file", file]);
    assert!(dev("short").stderr.contains("shorter than 16 characters"));
    assert!(dev("none").stderr.contains("cannot read a secret from none"));
}
