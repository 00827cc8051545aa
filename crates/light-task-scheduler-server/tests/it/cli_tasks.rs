//! `lts task …`, asked of a server and of its store: what is said, and with which exit code.

use serde_json::json;

use crate::served::Served;
use crate::support::Place;

const ECHO: &str = r#"{"argv": ["echo", "hi"]}"#;
const FAILS: &str = r#"{"argv": ["sh", "-c", "echo oops >&2; exit 3"]}"#;
const SLEEPS: &str = r#"{"argv": ["sleep", "600"]}"#;

#[test]
fn a_task_is_submitted_waited_for_and_shown() {
    let served = Served::new();
    for way in served.ways() {
        let done = way.gives(0, &["task", "submit", "process", ECHO, "--wait", "--label", "color=red"]);
        let (id, state) = done.trim().split_once(' ').unwrap();
        assert_eq!(state, "succeeded");
        assert_eq!(way.gives(0, &["task", "logs", id]), "hi\n");
        assert_eq!(way.gives(0, &["logs", "-f", id]), "hi\n", "the short name does the same");
        assert!(way.gives(0, &["task", "get", id]).contains("label:     color=red"));
        assert_eq!(way.gives(0, &["task", "wait", id]), done);
        let bad = way.submit(&["process", FAILS]);
        assert_eq!(way.gives(10, &["task", "wait", &bad, id]), format!("{bad} failed\n{id} succeeded\n"));
        let shown = way.lts(&["show", &bad, "--json"]).json().remove(0);
        assert_eq!((&shown["failure"]["exit_code"], &shown["attempts"][0]["outcome"]), (&json!(3), &json!("error")));
        let both = way.lts(&["task", "logs", &bad]);
        assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("", "oops\n"));
        assert_eq!(way.gives(0, &["task", "logs", "--stderr", &bad]), "oops\n");
    }
}

#[test]
fn payloads_come_from_words_stdin_and_files_as_they_are() {
    let served = Served::new();
    let big = r#"{"n": 123456789012345678901234567890}"#;
    served.place.write("payload.json", big);
    for way in served.ways() {
        for (input, payload) in [("", big), ("", "@payload.json"), (big, "-")] {
            let id = way.fed(input, &["task", "submit", "none", payload, "--held", "-o", "name"]).stdout;
            let stored = served.place.stored();
            let task = stored.iter().find(|task| task.id.to_string() == id.trim()).unwrap();
            assert_eq!(task.spec.payload.as_bytes(), big.as_bytes(), "no number has lost a digit");
        }
        let wrong = way.fed("{", &["task", "submit", "none", "-"]);
        assert!(wrong.code == 2 && wrong.stderr.contains("stdin is no JSON"), "{wrong:?}");
        way.gives(2, &["task", "submit", "none", "@nothing.json"]);
        let name = way.target[0].trim_start_matches('-');
        let key = ["none", "1", "--held", "--idempotency-key", name];
        assert_eq!(way.submit(&key), way.submit(&key), "the same key, the same task");
        way.gives(4, &["task", "submit", "none", "2", "--held", "--idempotency-key", name]);
    }
}

#[test]
fn a_task_is_rescheduled() {
    let served = Served::new();
    for way in served.ways() {
        let id = way.submit(&["process", ECHO, "--delay", "1h"]);
        let run_at = || way.lts(&["show", &id, "--json"]).json().remove(0)["run_at"].clone();
        let at = ["task", "reschedule", &id, "--at", "2100-01-01T00:00:00Z", "--priority", "-2"];
        assert_eq!(way.gives(0, &at), format!("{id} waiting\n"));
        assert_eq!(run_at(), json!("2100-01-01T00:00:00.000000Z"));
        assert!(way.gives(0, &["task", "get", &id]).contains("priority:  -2"));
        let all = ["task", "reschedule", "--where", &format!("id:{id}"), "--in", "2h"];
        assert_eq!(way.gives(0, &[&all[..], &["--dry-run"]].concat()), "1 task would be rescheduled\n");
        assert_eq!(way.gives(0, &all), "1 task rescheduled\n");
        assert_ne!(run_at(), json!("2100-01-01T00:00:00.000000Z"));
        way.gives(0, &["task", "reschedule", &id, "--in", "0s"]);
        assert_eq!(way.gives(0, &["task", "wait", &id]), format!("{id} succeeded\n"));
        way.gives(4, &["task", "reschedule", &id, "--in", "0s"]);
        way.gives(3, &["task", "reschedule", "nobody", "--in", "0s"]);
        way.gives(2, &["task", "reschedule", &id]);
        way.gives(2, &["task", "reschedule", &id, "--in", "1s", "--at", "2100-01-01T00:00:00Z"]);
        way.gives(2, &["task", "reschedule", &id, "--at", "tomorrow"]);
    }
}

#[test]
fn a_task_is_held_started_cancelled_retried_cloned_and_removed() {
    let served = Served::new();
    for way in served.ways() {
        let id = way.submit(&["process", ECHO, "--held"]);
        let late = way.lts(&["task", "wait", &id, "--timeout", "50ms"]);
        assert!(late.code == 7 && late.stderr.contains("has not ended"), "{late:?}");
        way.gives(0, &["task", "start", &id]);
        way.gives(0, &["task", "wait", &id]);
        way.gives(4, &["task", "start", &id]);
        way.gives(0, &["task", "retry", &id]);
        way.gives(0, &["task", "wait", &id]);
        let copy = way.gives(0, &["task", "clone", &id, "--payload", FAILS, "--priority", "7", "--held", "--json"]);
        let copy: serde_json::Value = serde_json::from_str(&copy).unwrap();
        assert_eq!((&copy["priority"], &copy["state"]), (&json!(7), &json!("held")));
        let sleeping = way.submit(&["process", SLEEPS]);
        assert_eq!(way.gives(0, &["task", "cancel", &sleeping]), format!("{sleeping} cancelled\n"));
        way.gives(11, &["task", "wait", &sleeping]);
        way.gives(4, &["task", "cancel", &id]);
        let copy = copy["id"].as_str().unwrap();
        assert_eq!(way.gives(0, &["rm", &id, copy]), format!("{id} removed\n{copy} removed\n"));
        way.gives(3, &["task", "get", &id]);
    }
    served.place.lts(&["cancel", "--where", "state:running", "--yes"]);
}

#[test]
fn ids_may_be_short_while_they_are_unique() {
    let served = Served::new();
    for (way, name) in served.ways().into_iter().zip(["a", "b"]) {
        for number in 1..=7 {
            way.submit(&["none", "--held", "--id", &format!("{name}-{number}x")]);
        }
        assert!(way.gives(0, &["task", "get", &format!("{name}-1")]).contains(&format!("{name}-1x")));
        for args in [&["get"][..], &["logs"], &["wait"], &["cancel"], &["start"], &["retry"], &["clone"], &["rm"]] {
            let ask = |id: &str| way.lts(&[&["task"], args, &[id]].concat());
            let several = ask(&format!("{name}-"));
            assert!(several.code == 4 && several.stderr.contains("several tasks begin with"), "{several:?}");
            assert!(several.stderr.contains(", …"), "five of them are named: {several:?}");
            for missing in ["zz", "no id", "../x", "a\"b"] {
                let said = ask(missing);
                assert!(said.code == 3 && said.stderr.contains("there is no task"), "{args:?}: {said:?}");
            }
        }
    }
}

#[test]
fn every_form_is_what_it_says() {
    let served = Served::new();
    for id in ["one", "two"] {
        served.ways()[0].submit(&["none", "--held", "--id", id, "--label", "batch=x"]);
    }
    for way in served.ways() {
        let ls = |form: &str| way.gives(0, &["task", "ls", "-o", form, "label.batch:x"]);
        assert_eq!(ls("name"), "two\none\n");
        let array: serde_json::Value = serde_json::from_str(&ls("json")).unwrap();
        assert_eq!(array.as_array().unwrap().len(), 2);
        let lines: Vec<serde_json::Value> =
            ls("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["id"]), (2, &json!("two")));
        let heading = |form: &str| ls(form).lines().next().unwrap().to_owned();
        assert!(heading("wide").contains("KIND") && !heading("table").contains("KIND"), "{}", heading("wide"));
        let first = way.lts(&["task", "ls", "--limit", "1"]);
        assert!(first.stdout.lines().count() == 2 && first.stderr.contains("there are more"), "{first:?}");
        let wrong = way.lts(&["task", "ls", "stat:failed", "--json"]);
        let problem: serde_json::Value = serde_json::from_str(&wrong.stderr).unwrap();
        assert_eq!((wrong.code, &problem["code"], &problem["status"]), (2, &json!("invalid"), &json!(400)));
        way.gives(2, &["task", "ls", "-o", "xml"]);
    }
}

#[test]
fn who_cannot_be_reached_and_who_may_not_is_told_by_the_exit_code() {
    let place = Place::new();
    let nobody = ["--server", "http://127.0.0.1:1"];
    for args in [&["task", "ls"][..], &["task", "get", "x"], &["queue", "ls"], &["stats"], &["events"], &["failures"]] {
        let said = place.lts(&[args, &nobody].concat());
        assert!(said.code == 6 && said.stderr.contains("cannot reach http://127.0.0.1:1"), "{said:?}");
    }
    let said = place.lts(&[&["task", "ls", "--json"][..], &nobody].concat());
    let problem: serde_json::Value = serde_json::from_str(&said.stderr).unwrap();
    assert_eq!((said.code, &problem["code"]), (6, &json!("unavailable")));
    assert_eq!(place.lts(&["task", "ls", "--store", "nothing.db"]).code, 3);
    assert_eq!(place.lts(&["task", "ls", "--server", "here"]).code, 2);
    let create = |role: &str| place.lts(&["token", "create", role, "--role", role]).stdout.trim().to_owned();
    let (operator, viewer) = (create("operator"), create("viewer"));
    let mut server = place.start(&["server", "--listen", "127.0.0.1:0", "--tokens", "lts-tokens.json"]);
    let line = server.hear("listens on http://");
    let url =
        line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().trim_end_matches(',').to_owned();
    let with = |token: &str, args: &[&str]| {
        let mut command = place.command(&[args, &["--server", &url]].concat());
        crate::support::said(command.env("LTS_TOKEN", token).output().unwrap())
    };
    let submit = ["task", "submit", "none", "--held"];
    assert_eq!(with(&operator, &submit).code, 0);
    assert_eq!(with(&viewer, &["task", "ls"]).code, 0);
    assert_eq!(with(&viewer, &submit).code, 5, "a viewer changes nothing");
    let wrong = with("lts_0_0", &["task", "ls", "--json"]);
    let problem: serde_json::Value = serde_json::from_str(&wrong.stderr).unwrap();
    assert_eq!((wrong.code, &problem["code"]), (5, &json!("unauthenticated")));
    assert_eq!(with("", &["task", "ls"]).code, 5);
    let checked = with(&viewer, &["doctor", "--json"]);
    assert!(checked.code == 0 && checked.stdout.contains("needs the role operator"), "{checked:?}");
    server.kill();
}
