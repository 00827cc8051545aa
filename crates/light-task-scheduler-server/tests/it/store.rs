//! `lts store`: what it shows, migrates and finds; and stores that are locked or full.

use std::process::Command;

use rusqlite::Connection;

use crate::support::{Place, said};

/// The exit codes of interest.
const ERROR: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 4;
const UNREACHABLE: i32 = 6;

fn with_two_tasks() -> Place {
    let place = Place::new();
    assert_eq!(place.write("f", "true\nfalse\n").lts(&["batch", "f"]).code, ERROR);
    place
}

fn change(place: &Place, sql: &str) {
    Connection::open(place.path("lts.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn status_shows_what_a_store_is_and_what_is_in_it() {
    let place = Place::new();
    let none = place.lts(&["store", "status"]);
    assert!(none.code == NOT_FOUND && none.stderr.contains("there is no store at ./lts.db"), "{none:?}");
    assert!(!place.path("lts.db").exists(), "looking makes no store");
    assert_eq!(place.lts(&["store", "check", "--store", "memory:"]).code, USAGE);
    let place = with_two_tasks();
    let shown = place.lts(&["store", "status", "--json"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    let status = &shown.json()[0];
    assert_eq!((&status["engine"], &status["current"]), (&"SQLite".into(), &true.into()), "{status}");
    assert!(status["durability"].as_str().unwrap().starts_with("always"), "{status}");
    assert!(status["bytes"].as_u64().unwrap() > 0 && status["replicas"].as_array().unwrap().is_empty(), "{status}");
    let counts = &status["queues"][0]["counts"];
    assert_eq!((&counts["succeeded"], &counts["failed"]), (&1.into(), &1.into()), "{status}");
    let table = place.lts(&["store", "status", "--store", "cached+sqlite:lts.db"]);
    for words in ["engine      SQLite 3.", "schema      tasks ", "replicas    0 alive", "SUCCEEDED"] {
        assert!(table.stdout.contains(words), "{words}: {table:?}");
    }
}

#[test]
fn an_operator_migrates_when_he_likes() {
    let place = Place::new();
    place.write("lts.db", "");
    let store = ["--store", "sqlite:lts.db?migrate=false"];
    for args in [
        [&["ls"], &store[..]].concat(),
        [&["run"], &store[..], &["--", "true"]].concat(),
        [&["queue", "pause", "q"], &store[..]].concat(),
        [&["store", "check"], &store[..]].concat(),
    ] {
        let refused = place.lts(&args);
        assert!(refused.code == CONFLICT && refused.stderr.contains("`lts store migrate`"), "{args:?}: {refused:?}");
    }
    let status = place.lts(&["store", "status"]);
    assert!(status.code == CONFLICT && status.stdout.contains("tasks not made yet"), "{status:?}");
    let dry = place.lts(&["store", "migrate", "--dry-run"]);
    let version =
        dry.stdout.trim_end().strip_prefix("tasks: would go from version 0 to ").and_then(|to| to.parse().ok());
    let version: u32 = version.unwrap_or_else(|| panic!("{dry:?}"));
    assert!(dry.code == 0 && version > 0, "{dry:?}");
    assert_eq!(place.read("lts.db"), "", "a dry run changes nothing");
    let done = place.lts(&[&["store", "migrate", "--json"], &store[..]].concat());
    assert_eq!(done.json()[0]["steps"][0]["to"], version, "{done:?}");
    assert_eq!(place.lts(&["store", "migrate"]).stdout, "./lts.db is up to date\n");
    assert_eq!(place.lts(&[&["ls"], &store[..]].concat()).code, 0);
    change(&place, "PRAGMA user_version = 99");
    for command in ["status", "migrate", "check"] {
        let newer = place.lts(&["store", command]);
        assert_eq!(newer.code, CONFLICT, "{command}: {newer:?}");
        assert!(format!("{}{}", newer.stdout, newer.stderr).contains("99"), "{command}: {newer:?}");
    }
}

#[test]
fn check_finds_what_was_broken_by_hand() {
    let place = with_two_tasks();
    let sound = place.lts(&["store", "check"]);
    assert_eq!((sound.code, sound.stdout.as_str()), (0, "./lts.db is consistent\n"), "{sound:?}");
    change(&place, "UPDATE tasks SET finished_at = NULL WHERE stage = 4; UPDATE tallies SET n = n + 1");
    let broken = place.lts(&["store", "check"]);
    assert!(broken.code == ERROR && broken.stdout.contains("has ended without an end"), "{broken:?}");
    let json = place.lts(&["store", "check", "--json"]).json().remove(0);
    assert_eq!(json["consistent"], false);
    assert_eq!(json["problems"].as_array().unwrap().len(), broken.stdout.lines().count());
}

/// Both parts of a store in a server, the tasks and the logs, are shown, migrated and checked.
#[test]
fn a_store_in_a_server_is_looked_at_without_its_password() {
    let url = std::env::var("LTS_TEST_POSTGRES_URL").expect("see scripts/servers/postgres");
    let password = url.split_once('@').unwrap().0.rsplit_once(':').unwrap().1.to_owned();
    let place = Place::new();
    let store = format!("{url}?namespace=store_{}", std::process::id());
    let lts = |args: &[&str], code: i32| {
        let said = place.lts(&[args, &["--store", &store]].concat());
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        assert!(!format!("{}{}", said.stdout, said.stderr).contains(&password), "{said:?}");
        said.stdout
    };
    let new = lts(&["store", "status"], CONFLICT);
    assert!(new.contains("tasks not made yet (version ") && new.contains(" is needed), results not made"), "{new}");
    assert_eq!(lts(&["store", "migrate", "--dry-run"], 0).lines().count(), 2);
    assert_eq!(lts(&["store", "migrate"], 0).lines().count(), 2);
    assert!(lts(&["store", "status"], 0).contains("PostgreSQL 1"));
    assert!(lts(&["store", "check"], 0).contains("is consistent"));
    let nobody = place.lts(&["store", "status", "--store", "postgres://me:s3cret@127.0.0.1:1/work"]);
    assert!(nobody.code == UNREACHABLE && !nobody.stderr.contains("s3cret"), "{nobody:?}");
}

#[test]
fn a_locked_store_is_told_from_a_broken_one() {
    let place = with_two_tasks();
    let holder = Connection::open(place.path("lts.db")).unwrap();
    holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let locked = place.lts(&["queue", "set", "q", "--concurrency", "1"]);
    assert_eq!(locked.code, UNREACHABLE, "{locked:?}");
    assert!(locked.stderr.contains("lts.db") && locked.stderr.contains("another process has locked"), "{locked:?}");
    drop(holder);
    assert_eq!(place.lts(&["queue", "set", "q", "--concurrency", "1"]).code, 0);
}

/// On a file system of its own with a few MiB, in a mount namespace of its own. What is said is kept outside, where there
/// is room for it.
#[test]
fn a_full_disk_is_told_and_what_was_accepted_goes_on_later() {
    let place = Place::new();
    let line = |n| format!("echo {} {n}\n", "x".repeat(100));
    place.write("many", &(0..20_000).map(line).collect::<String>());
    std::fs::create_dir(place.path("small")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=3m tmpfs small && cd small || exit 99
        {lts} batch ../many --concurrency 2 >../out 2>&1; echo $? >../code; {lts} ls --limit 1 >../ls",
        lts = env!("CARGO_BIN_EXE_lts")
    );
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]).current_dir(place.path(""));
    let ran = said(command.output().unwrap());
    assert_eq!(ran.code, 0, "a file system of its own can be mounted: {ran:?}");
    assert_eq!(place.read("code"), "1\n", "{}", place.read("out"));
    assert!(place.read("out").contains("full; free some space"), "{}", place.read("out"));
    assert!(place.read("ls").contains("echo xxx"), "what was accepted can be read: {}", place.read("ls"));
}
