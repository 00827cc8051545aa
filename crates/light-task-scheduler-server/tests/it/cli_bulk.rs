//! Many tasks at once by a query, queues, and numbers: asked of a server and of its store.

use serde_json::json;

use crate::served::Served;

#[test]
fn a_query_moves_what_it_finds_and_is_asked_about_beyond_a_page() {
    let served = Served::new();
    for way in served.ways() {
        let lines = (0..120).map(|_| "{\"kind\": \"none\", \"queue\": \"bulk\", \"held\": true}");
        served.place.write("tasks", &lines.collect::<Vec<_>>().join("\n"));
        post_lines(&served, "tasks");
        let of = |args: &[&str]| way.lts(&[&["task", "cancel", "--where", "queue:bulk state:held"], args].concat());
        let dry = of(&["--dry-run"]);
        assert_eq!((dry.code, dry.stdout.as_str()), (0, "120 tasks would be cancelled\n"));
        let refused = of(&[]);
        assert!(refused.code == 2 && refused.stderr.contains("--yes"), "{refused:?}");
        assert_eq!(of(&["--dry-run", "--json"]).json()[0]["matched"], 120, "nothing was changed by being refused");
        assert_eq!(of(&["--limit", "50"]).stdout, "50 tasks cancelled\n", "a page needs no --yes");
        assert_eq!(of(&["--limit", "60", "--yes", "--json"]).json()[0]["changed"], 60);
        assert_eq!(of(&[]).stdout, "10 tasks cancelled\n");
        assert_eq!(of(&[]).stdout, "0 tasks cancelled\n");
        let retried = way.gives(0, &["task", "retry", "--where", "queue:bulk", "--limit", "1"]);
        assert_eq!(retried, "1 task retried\n");
        way.gives(2, &["task", "retry", "--where", "queue:"]);
        way.gives(2, &["task", "rm", "some-id", "--where", "queue:bulk"]);
        way.gives(2, &["task", "rm"]);
        assert_eq!(way.gives(0, &["queue", "purge", "bulk"]), "bulk: 1 removed\n");
        assert_eq!(way.gives(0, &["task", "rm", "--where", "queue:bulk", "-y"]), "119 tasks removed\n");
    }
}

fn post_lines(served: &Served, file: &str) {
    for line in served.place.read(file).lines() {
        let task: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(task["held"], true);
    }
    // One request: 120 programs would take a while.
    let curl = std::process::Command::new("curl")
        .args(["-sf", "-H", "content-type: application/x-ndjson", "--data-binary"])
        .arg(format!("@{}", served.place.path(file).display()))
        .arg(format!("{}/api/v1/tasks/batch", served.url))
        .output()
        .unwrap();
    assert!(curl.status.success(), "{curl:?}");
}

#[test]
fn queues_are_operated_in_either_way() {
    let served = Served::new();
    for (way, queue) in served.ways().into_iter().zip(["video", "audio"]) {
        let missing = way.lts(&["queue", "pause", queue]);
        assert!(missing.code == 3 && missing.stderr.contains("there is no queue"), "a mistyped one: {missing:?}");
        let set = way.gives(0, &["queue", "set", queue, "--concurrency", "2", "--rate", "5/s"]);
        assert_eq!(set, format!("{queue}: 2 at once, 5 per 1s\n"));
        assert_eq!(way.gives(0, &["queue", "set", queue, "--no-rate"]), format!("{queue}: 2 at once\n"));
        assert_eq!(way.gives(0, &["queue", "pause", queue]), format!("{queue}: 2 at once, paused\n"));
        let shown = way.lts(&["queue", "get", queue, "--json"]).json().remove(0);
        assert_eq!((&shown["settings"]["paused"], &shown["settings"]["concurrency"]), (&json!(true), &json!(2)));
        assert!(way.gives(0, &["queue", "ls"]).contains("2 at once, paused"));
        assert_eq!(way.gives(0, &["queue", "ls", "-o", "name"]), format!("{queue}\n"));
        assert_eq!(way.gives(0, &["queue", "resume", queue]), format!("{queue}: 2 at once\n"));
        assert_eq!(way.gives(0, &["queue", "ls", "-o", "name"]), "", "those with nothing to do are noise");
        assert!(way.gives(0, &["queue", "ls", "--all", "-o", "name"]).contains(queue));
    }
}

#[test]
fn numbers_failures_and_events_are_the_same_in_either_way() {
    let served = Served::new();
    let [server, _] = served.ways();
    for number in [1, 2] {
        let payload = format!("{{\"argv\": [\"sh\", \"-c\", \"echo no file {number} >&2; exit 1\"]}}");
        server.gives(10, &["task", "submit", "process", &payload, "--wait"]);
    }
    for way in served.ways() {
        assert_eq!(way.lts(&["stats", "--json"]).json()[0]["totals"]["failed"], 2);
        assert!(way.gives(0, &["stats"]).starts_with("HELD  WAITING"));
        let groups = way.lts(&["failures", "--json"]).json();
        assert_eq!((groups.len(), &groups[0]["count"]), (1, &json!(2)), "they failed alike: {groups:?}");
        assert_eq!(way.lts(&["failures", "queue:other", "--json"]).json().len(), 0);
        let event = way.lts(&["events"]).json().remove(0);
        assert_eq!((&event["event"], &event["data"]["totals"]["failed"]), (&json!("stats"), &json!(2)));
        way.gives(2, &["events", "--topics", "weather"]);
    }
}

#[test]
fn events_are_followed_in_either_way() {
    use std::io::BufRead;
    let served = Served::new();
    for way in served.ways() {
        let mut watching = served.place.start(&[&["events", "-f"], &way.target[..]].concat());
        let mut lines = watching.stdout().lines();
        let mut next = || serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(next()["event"], "stats", "it begins with how things stand");
        let id = way.submit(&["process", r#"{"argv": ["true"]}"#]);
        // Through a store nobody tells which task it was, but that something has changed.
        let came = (0..50).map(|_| next()).find(|event| event["event"] != "stats").unwrap();
        let told = came["event"] == "changed" || came["data"].to_string().contains(&id);
        assert!(told, "{came}");
        watching.kill();
    }
}
