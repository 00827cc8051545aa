//! `lts ls`, `show`, `logs`, `retry`, `rm` and `queue`, and their exit codes.

use crate::support::Place;

fn two_tasks() -> Place {
    let place = Place::new();
    let lines = "{\"argv\":[\"echo\",\"hi\"],\"id\":\"ab-1\",\"labels\":{\"color\":\"red\"}}\n{\"argv\":[\"false\"],\"id\":\"ab-2\"}\n";
    place.write("f", lines).lts(&["batch", "f", "--name", "n"]);
    place
}

#[test]
fn tasks_are_listed_by_filters() {
    let place = two_tasks();
    for (args, ids) in [
        (&[][..], vec!["ab-2", "ab-1"]),
        (&["--state", "failed,cancelled"], vec!["ab-2"]),
        (&["--label", "color=red"], vec!["ab-1"]),
        (&["--batch", "n", "--queue", "batch-n", "--kind", "process"], vec!["ab-2", "ab-1"]),
        (&["--batch", "m"], vec![]),
    ] {
        let found: Vec<String> = place.tasks(args).iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, ids, "{args:?}");
    }
    let table = place.lts(&["ls", "--limit", "1"]);
    assert!(table.stdout.starts_with("ID ") && table.stdout.lines().count() == 2, "{table:?}");
    assert!(table.stderr.contains("there are more"), "{table:?}");
}

#[test]
fn a_task_is_found_by_the_beginning_of_its_id() {
    let place = two_tasks();
    let shown = place.lts(&["show", "ab-2"]);
    assert!(shown.stdout.contains("state:     failed") && shown.stdout.contains("exit code: 1"), "{shown:?}");
    assert_eq!(place.lts(&["show", "ab-1", "--json"]).json()[0]["result"]["exit_code"], 0);
    assert_eq!(place.lts(&["logs", "ab-1"]).stdout, "hi\n");
    let several = place.lts(&["show", "ab"]);
    assert!(several.code == 4 && several.stderr.contains("several tasks begin with ab"), "{several:?}");
    for args in [&["show", "x"][..], &["logs", "x"], &["cancel", "x"], &["retry", "x"], &["rm", "ab-1", "x"]] {
        let missing = place.lts(args);
        assert!(missing.code == 3 && missing.stderr.contains("there is no task x"), "{missing:?}");
    }
    assert_eq!(place.tasks(&[]).len(), 2, "one of them missing: none is removed");
}

#[test]
fn ended_tasks_are_retried_and_removed() {
    let place = two_tasks();
    let late = place.lts(&["cancel", "ab-1"]);
    assert_eq!(late.code, 4, "{late:?}");
    let retried = place.lts(&["retry", "ab-2", "--json"]);
    assert_eq!((retried.code, &retried.json()[0]["state"]), (0, &"waiting".into()), "{retried:?}");
    assert_eq!(place.lts(&["retry", "ab-2"]).code, 4, "it waits already");
    assert_eq!(place.lts(&["rm", "ab-2"]).code, 4, "it has not ended");
    assert_eq!(place.lts(&["cancel", "ab-2"]).stdout, "ab-2 cancelled\n");
    let removed = place.lts(&["rm", "ab-1", "ab-2"]);
    assert_eq!((removed.code, removed.stdout.as_str()), (0, "ab-1 removed\nab-2 removed\n"));
    assert_eq!(place.tasks(&[]).len(), 0);
    let again = place.lts(&["batch", "f", "--name", "n"]);
    assert!(again.code == 1 && again.stderr.contains("was removed"), "{again:?}");
}

#[test]
fn queues_are_paused_and_limited() {
    let place = two_tasks();
    assert_eq!(
        place.lts(&["queue", "set", "q", "--concurrency", "2", "--rate", "5/s"]).stdout,
        "q: 2 at once, 5 per 1s\n"
    );
    assert_eq!(place.lts(&["queue", "pause", "q"]).stdout, "q: 2 at once, 5 per 1s, paused\n");
    let listed = place.lts(&["queue", "ls", "--json"]);
    assert_eq!((listed.json().len(), &listed.json()[0]["settings"]["concurrency"]), (1, &2.into()), "{listed:?}");
    assert_eq!(place.lts(&["queue", "set", "q", "--no-rate"]).stdout, "q: 2 at once, paused\n");
    assert_eq!(place.lts(&["queue", "resume", "q"]).stdout, "q: 2 at once\n");
    place.write("g", "true\n");
    assert_eq!(place.lts(&["batch", "g", "--queue", "q"]).code, 0);
    assert_eq!(place.lts(&["queue", "resume", "q"]).stdout, "q: 2 at once\n", "a batch changes no foreign queue");
}
