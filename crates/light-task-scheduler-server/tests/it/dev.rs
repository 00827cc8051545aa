//! `lts dev` and `lts server` as a new user meets them: the first request, a restart, a kill, and mistakes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Place, Running};

/// A free port.
pub(crate) const ANY: &str = "127.0.0.1:0";

/// A server that listens, until this is dropped.
pub(crate) struct Server {
    running: Option<Running>,
    pub(crate) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }
}

impl Server {
    pub(crate) fn start(place: &Place, args: &[&str]) -> Server {
        let mut running = place.start(args);
        running.hear("listens on");
        let place = running.heard().split("http://").nth(1).unwrap();
        let address = place.split(|c: char| c == ',' || c == '/' || c.is_whitespace()).next().unwrap().to_owned();
        Server { running: Some(running), address }
    }

    fn dev(place: &Place) -> Server {
        Server::start(place, &["dev", "--listen", ANY])
    }

    /// Asks it to end, and answers its exit code.
    fn end(mut self, signal: Signal) -> i32 {
        let running = self.running.take().unwrap();
        running.signal(signal);
        running.wait()
    }

    /// Asks over a connection of its own, as `curl` would: status and body.
    pub(crate) fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let host = &self.address;
        let headers = format!("Host: {host}\r\n{token}Content-Type: application/x-www-form-urlencoded\r\n");
        self.send(method, path, &headers, body)
    }

    /// The same, with these headers.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, body) = self.ask(method, path, None, body);
        assert!(status < 300, "{method} {path}: {status} {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn submit(&self, line: &str) -> String {
        let task = json!({"kind": "process", "payload": {"argv": ["/bin/sh", "-c", line]}, "timeout": "60s"});
        self.json("POST", "/api/v1/tasks", &task.to_string())["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn ended(&self, id: &str) -> Value {
        let task = self.json("GET", &format!("/api/v1/tasks/{id}?wait=60s"), "");
        assert!(task["finished_at"].is_string(), "{task}");
        task
    }
}

#[test]
fn a_server_that_drains_runs_tasks_again_when_it_is_started_again() {
    let place = Place::new();
    let mut server = Server::dev(&place);
    let worker = server.json("GET", "/api/v1/workers", "")[0]["id"].as_str().unwrap().to_owned();
    let said =
        place.lts(&["worker", "drain", &worker, "--server", &format!("http://{}", server.address), "-o", "jsonl"]);
    assert_eq!((said.code, &said.json()[0]["draining"]), (0, &json!(true)), "{said:?}");
    server.running.as_mut().unwrap().hear("drained: it goes on answering");
    assert_eq!(server.json("GET", "/api/v1/workers", ""), json!([]));
    assert_eq!(server.json("GET", "/api/v1/capabilities", "")["draining"], true);
    let id = server.submit("true");
    assert_eq!(server.json("GET", &format!("/api/v1/tasks/{id}"), "")["state"], "waiting");
    assert_eq!(server.end(Signal::TERM), 0);
    let server = Server::dev(&place);
    assert_eq!(server.ended(&id)["state"], "succeeded");
}

#[test]
fn the_printed_line_works_as_it_is() {
    let place = Place::new();
    let mut server = Server::dev(&place);
    let running = server.running.as_mut().unwrap();
    running.hear("try: curl");
    let line = running.heard().lines().last().unwrap().to_owned();
    let body = line.split("-d '").nth(1).unwrap().trim_end_matches('\'');
    let (status, answer) = server.ask("POST", "/api/v1/tasks", None, body);
    assert_eq!(status, 201, "{answer}");
    let id = serde_json::from_str::<Value>(&answer).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.ended(&id)["state"], "succeeded");
    assert_eq!(server.ask("GET", &format!("/api/v1/tasks/{id}/logs"), None, "").1, "hi\n");
    let (status, page) = server.ask("GET", "/", None, "");
    assert!(status == 200 && page.contains("<script type=\"module\""), "{page}");
    assert_eq!(server.end(Signal::INT), 0);
}

#[test]
fn what_runs_outlives_a_kill_and_is_taken_up_by_the_next_start() {
    let place = Place::new();
    place.fifo("gate");
    let server = Server::dev(&place);
    let id = server.submit("echo before; cat gate; echo once >> runs");
    while server.json("GET", &format!("/api/v1/tasks/{id}"), "")["state"] != "running"
        || server.ask("GET", &format!("/api/v1/tasks/{id}/logs"), None, "").1.is_empty()
    {
        std::thread::yield_now();
    }
    drop(server);
    let server = Server::dev(&place);
    std::fs::write(place.path("gate"), "through\n").unwrap();
    let task = server.ended(&id);
    assert_eq!((&task["state"], &task["attempt"], &task["interruptions"]), (&json!("succeeded"), &json!(1), &json!(0)));
    assert_eq!(server.ask("GET", &format!("/api/v1/tasks/{id}/logs"), None, "").1, "before\nthrough\n");
    assert_eq!(place.read("runs"), "once\n");
}

#[test]
fn a_cancel_kills_the_whole_tree() {
    let place = Place::new();
    let server = Server::dev(&place);
    let id = server.submit("sleep 300 & echo started; sleep 300; wait");
    while server.ask("GET", &format!("/api/v1/tasks/{id}/logs"), None, "").1.is_empty() {
        std::thread::yield_now();
    }
    server.json("POST", &format!("/api/v1/tasks/{id}/cancel"), "");
    assert_eq!(server.ended(&id)["state"], "cancelled");
    assert!(place.processes_called("sleep").is_empty(), "{:?}", place.processes());
}

#[test]
fn the_demonstration_has_something_of_everything_and_is_there_once() {
    let place = Place::new();
    for _ in 0..2 {
        let server = Server::start(&place, &["dev", "--demo", "--listen", ANY]);
        let queues = server.json("GET", "/api/v1/queues", "");
        let names: Vec<_> = queues.as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["imports", "mail", "reports", "thumbnails", "video"]);
        let tasks = server.json("GET", "/api/v1/tasks?limit=1000", "");
        assert_eq!(tasks["tasks"].as_array().unwrap().len(), 42);
        assert_eq!(server.end(Signal::TERM), 0);
    }
}

#[test]
fn mistakes_are_told_in_one_sentence() {
    let place = Place::new();
    let taken = TcpListener::bind(ANY).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    place.write("bad.toml", "listne = \"127.0.0.1:0\"\n");
    for (args, code, why) in [
        (vec!["dev", "--listen", &taken], 1, "is taken by another program"),
        (vec!["dev", "--listen", "0.0.0.0:0"], 2, "this host only"),
        (vec!["server", "--listen", "0.0.0.0:0"], 2, "refusing to listen on 0.0.0.0:0 without tokens"),
        (vec!["server", "--config", "bad.toml"], 2, "bad.toml:1: unknown `listne`; did you mean `listen`?"),
        (vec!["config", "check", "--config", "bad.toml"], 2, "did you mean `listen`?"),
        (vec!["server", "--config", "none.toml"], 2, "none.toml"),
        (vec!["server", "--listen", ANY, "--store", "oracle://x"], 2, "no store for `oracle:`"),
        (vec!["token", "create", "x", "--role", "king"], 2, "viewer, operator, admin, worker"),
    ] {
        let said = place.lts(&args);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        assert!(said.stderr.contains(why), "{args:?}: {said:?}");
    }
    assert!(!place.path("lts.db").exists(), "a server that cannot listen has opened a store");
    let said = place.lts(&["config", "show", "--origin"]);
    assert!(said.stdout.contains("127.0.0.1:7600") && said.stdout.contains("default"), "{said:?}");
}

#[test]
fn tokens_are_made_and_revoked_while_the_server_runs() {
    let place = Place::new();
    let create = |name: &str, role: &str| {
        let said = place.lts(&["token", "create", name, "--role", role, "--tokens", "t.json"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.stdout.trim().to_owned()
    };
    let admin = create("ada", "admin");
    let mut server = Server::start(&place, &["server", "--listen", "0.0.0.0:0", "--tokens", "t.json"]);
    server.address = server.address.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(server.ask("GET", "/api/v1/tasks", None, "").0, 401);
    assert_eq!(server.ask("GET", "/api/v1/tasks", Some(&admin), "").0, 200);
    assert_eq!(server.ask("GET", "/healthz", None, "").0, 200);
    let viewer = create("bob", "viewer");
    // The server looks at the file again within a second.
    while server.ask("GET", "/api/v1/tasks", Some(&viewer), "").0 == 401 {
        std::thread::yield_now();
    }
    assert_eq!(server.ask("POST", "/api/v1/tasks", Some(&viewer), r#"{"kind":"process"}"#).0, 403);
    let listed = place.lts(&["token", "ls", "--json", "--tokens", "t.json"]).json();
    let bob = listed.iter().find(|token| token["name"] == "bob").unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(place.lts(&["token", "revoke", &bob, "--tokens", "t.json"]).code, 0);
    assert_eq!(place.lts(&["token", "revoke", &bob, "--tokens", "t.json"]).code, 3);
    while server.ask("GET", "/api/v1/tasks", Some(&viewer), "").0 == 200 {
        std::thread::yield_now();
    }
}
