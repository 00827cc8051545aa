//! Contexts, the doctor, what is made from the code, and `lts top` where there is no terminal.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::served::Served;
use crate::support::Place;

#[test]
fn a_context_says_whom_to_ask_and_production_is_asked_about() {
    let served = Served::new();
    let place = &served.place;
    let gives = |code: i32, args: &[&str]| {
        let said = place.lts(args);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        said
    };
    gives(0, &["context", "set", "prod", "--server", &served.url, "--token", "lts_a_secret", "--production"]);
    gives(0, &["context", "set", "here", "--store", "lts.db"]);
    gives(2, &["context", "set", "nowhere"]);
    let missing = gives(3, &["context", "use", "prd"]);
    assert!(missing.stderr.contains("did you mean prod"), "{missing:?}");
    let mode = std::fs::metadata(place.path("config/lts/config.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "there is a token in it");
    gives(0, &["context", "use", "prod"]);
    let shown = gives(0, &["context", "show", "--json"]);
    assert_eq!((&shown.json()[0]["name"], &shown.json()[0]["server"]), (&json!("prod"), &json!(served.url)));
    assert!(!shown.stdout.contains("secret") && !gives(0, &["context", "ls"]).stdout.contains("secret"));
    let submit = ["task", "submit", "none", "--held", "--id", "x"];
    let refused = gives(2, &submit);
    assert!(refused.stderr.contains("in prod, which is production"), "{refused:?}");
    gives(0, &[&submit[..], &["--yes"]].concat());
    assert_eq!(gives(0, &["ls", "-o", "name"]).stdout, "x\n", "looking needs no consent");
    for args in [&["task", "cancel", "x"][..], &["task", "rm", "--where", "id:x"], &["queue", "pause", "default"]] {
        gives(2, args);
    }
    assert_eq!(gives(0, &["task", "cancel", "x", "--context", "here"]).stdout, "x cancelled\n");
    gives(3, &["ls", "--context", "nowhere"]);
    gives(0, &["context", "rm", "prod"]);
    gives(3, &["context", "show"]);
    place.write("config/lts/config.toml", "curent = \"x\"");
    let wrong = gives(2, &["ls"]);
    assert!(wrong.stderr.contains("config.toml") && wrong.stderr.contains("curent"), "{wrong:?}");
}

#[test]
fn the_doctor_finds_what_is_in_order_and_what_is_not() {
    let served = Served::new();
    for (way, wanted) in served.ways().into_iter().zip([
        &["server", "token", "versions", "clock", "read", "write", "files"][..],
        &["store", "schema", "disk", "read", "write", "docker", "files"],
    ]) {
        let said = way.lts(&["doctor", "--json"]);
        assert_eq!(said.code, 0, "{said:?}");
        let findings = said.json();
        for check in wanted {
            let found = findings.iter().find(|finding| finding["check"] == *check);
            assert!(found.is_some_and(|found| found["level"] != "fail"), "{check}: {findings:?}");
        }
        assert!(way.gives(0, &["doctor", "--no-write"]).contains("CHECK"));
    }
    assert_eq!(served.place.tasks(&[]).len(), 0, "it leaves nothing behind");
    for target in [["--store", "nothing.db"], ["--server", "http://127.0.0.1:1"]] {
        let sick = served.place.lts(&[&["doctor", "--json"], &target[..]].concat());
        assert!(sick.code == 1 && sick.json().iter().any(|finding| finding["level"] == "fail"), "{sick:?}");
    }
}

#[test]
fn completions_man_pages_and_the_description_are_made_from_the_code() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.lts(&["completion", shell]);
        assert!(script.code == 0 && script.stdout.contains("task"), "{shell}");
    }
    std::fs::write(place.path("lts.bash"), place.lts(&["completion", "bash"]).stdout).unwrap();
    let read = std::process::Command::new("bash").args(["-n"]).arg(place.path("lts.bash")).status().unwrap();
    assert!(read.success(), "bash cannot read its script");
    assert_eq!(place.lts(&["man", "pages"]).code, 0);
    assert!(place.read("pages/lts-task-ls.1").contains("Lists tasks, newest first"));
    let kept = include_str!("../../../../docs/openapi.json");
    assert!(place.lts(&["openapi"]).stdout == kept, "it is the kept description");
}

#[test]
fn top_draws_on_a_terminal_and_ends_by_a_key() {
    let served = Served::new();
    for way in served.ways() {
        way.submit(&["none", "--queue", "films", "--held"]);
        // `script` gives it a terminal.
        let top = format!("{} top {} {}", env!("CARGO_BIN_EXE_lts"), way.target[0], way.target[1]);
        let command = served.place.command(&[]);
        let typed = std::process::Command::new("script")
            .args(["-qec", &format!("stty cols 100 rows 30; {top}"), "/dev/null"])
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("TERM", "xterm")
            .current_dir(served.place.path(""))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let mut typed = typed.unwrap();
        // Kept open until it has ended: the end of what is typed would end the terminal.
        let mut keys = typed.stdin.take().unwrap();
        std::io::Write::write_all(&mut keys, b"q").unwrap();
        let ended = typed.wait_with_output().unwrap();
        let screen = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success() && screen.contains("films") && screen.contains("lts top"), "{screen}");
        drop(keys);
    }
}

#[test]
fn top_says_what_to_do_where_there_is_no_terminal() {
    let said = Place::new().lts(&["top"]);
    assert!(said.code == 2 && said.stderr.contains("lts stats"), "{said:?}");
}
