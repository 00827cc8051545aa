//! Bad input: one clear sentence, the right code, and nothing stored.

use crate::support::Place;

/// Runs `lts batch` on a file with this text: it must be refused, with this code and words, and store nothing.
fn refused(text: &str, code: i32, words: &[&str]) {
    let place = Place::new();
    let said = place.write("f", text).lts(&["batch", "f"]);
    assert_eq!(said.code, code, "{text:.99}: {said:?}");
    for word in words {
        assert!(said.stderr.contains(word), "{word}: {said:?}");
    }
    assert_eq!(said.stdout, "");
    assert!(!place.path("lts.db").exists(), "nothing is stored");
}

#[test]
fn bad_lines_are_all_named_and_nothing_is_stored() {
    refused(
        "true\n{\"argvv\":[\"a\"]}\n",
        2,
        &["line 2: unknown field `argvv`; did you mean `argv`?", "nothing was stored"],
    );
    refused(
        "{\"argv\":[\"a\"],\"timeout\":\"3 parsecs\"}\n{}\n",
        2,
        &["line 1", "not a duration", "line 2", "no `argv`"],
    );
    let twice = "{\"argv\":[\"a\"],\"id\":\"x\"}\n{\"argv\":[\"b\"],\"id\":\"x\"}\n";
    refused(twice, 2, &["line 2: the id `x` is that of another command on line 1"]);
    refused(&format!("true {}\n", "x".repeat(1 << 20)), 2, &["line 1", "more than 1048576"]);
}

#[test]
fn bad_options_are_refused() {
    let place = Place::new();
    place.write("f", "true\n");
    for (args, words) in [
        (&["batch", "f", "--concurrency", "0"][..], "0 is not in 1.."),
        (&["batch", "f", "--timeout", "30"], "it has no unit"),
        (&["batch", "f", "--rate", "0/s"], "is not a rate"),
        (&["batch", "f", "--store", "mongodb://h/d"], "no store for `mongodb:`"),
        (&["batch", "f", "--fail-fast", "--keep-going"], "cannot be used with"),
        (&["batch", "f", "--colour"], "unexpected argument"),
        (&["batch", "nothing"], "cannot read nothing: No such file"),
        (&["run"], "required"),
        (&["queue", "set", "q"], "nothing to set"),
        (&["ls", "--state", "lost"], "is not a state"),
    ] {
        let said = place.lts(args);
        assert_eq!(said.code, 2, "{args:?}: {said:?}");
        assert!(said.stderr.contains(words), "{args:?}: {said:?}");
    }
    assert!(!place.path("lts.db").exists(), "nothing is stored");
}

#[test]
fn stores_that_cannot_be_used_are_refused() {
    let place = Place::new();
    place.write("f", "true\n").write("garbage", &"not a database ".repeat(100));
    let said = place.lts(&["batch", "f", "--store", "garbage"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("garbage") && said.stderr.contains("something else"), "{said:?}");
    let said = place.lts(&["batch", "f", "--store", "no/such/directory/lts.db"]);
    assert!(said.code != 0 && said.stderr.contains("no/such/directory"), "{said:?}");
    let said = place.lts(&["ls", "--store", "nothing.db"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("there is no store at nothing.db") && !place.path("nothing.db").exists(), "{said:?}");
}

#[test]
fn a_newer_schema_is_refused() {
    let place = Place::new();
    assert_eq!(place.write("f", "true\n").lts(&["batch", "f"]).code, 0);
    let database = rusqlite::Connection::open(place.path("lts.db")).unwrap();
    database.pragma_update(None, "user_version", 1_000).unwrap();
    drop(database);
    let said = place.lts(&["batch", "f"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("version 1000 of the tasks") && said.stderr.contains("newer release"), "{said:?}");
}

#[test]
fn an_id_that_is_taken_is_refused_before_anything_is_stored() {
    let place = Place::new();
    place.write("f", "{\"argv\":[\"true\"],\"id\":\"x\"}\n").write("g", "true\n{\"argv\":[\"false\"],\"id\":\"x\"}\n");
    assert_eq!(place.lts(&["batch", "f"]).code, 0);
    let said = place.lts(&["batch", "g"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("line 2: the id `x` is in the store already, with another command"), "{said:?}");
    assert_eq!(place.tasks(&[]).len(), 1, "its first line is not stored either");
}

#[test]
fn a_batch_of_another_directory_is_refused() {
    let place = Place::new();
    std::fs::create_dir(place.path("sub")).unwrap();
    assert_eq!(place.write("f", "true\n").lts(&["batch", "f"]).code, 0);
    let mut elsewhere = place.command(&["batch", "../f", "--store", "../lts.db"]);
    let said = crate::support::said(elsewhere.current_dir(place.path("sub")).output().unwrap());
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("was begun in the directory"), "{said:?}");
}

#[test]
fn a_missing_program_fails_its_task_with_a_reason() {
    let place = Place::new();
    let said = place.write("f", "{\"argv\":[\"no-such-program\"],\"retries\":3}\ntrue\n").lts(&["batch", "f"]);
    assert_eq!((said.code, said.counts()), (1, [2, 1, 1, 0]), "{said:?}");
    assert!(
        said.stderr.contains("failed: line 1, id ") && said.stderr.contains("no such program: no-such-program"),
        "{said:?}"
    );
}

#[test]
fn a_file_of_another_kind_is_no_job_log() {
    let place = Place::new();
    let said = place.write("f", "true\n").write("log", "my notes\n").lts(&["batch", "f", "--joblog", "log"]);
    assert_eq!((said.code, place.read("log").as_str()), (2, "my notes\n"), "{said:?}");
}
