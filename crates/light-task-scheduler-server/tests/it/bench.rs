//! `lts bench`: every store is measured, and nothing is left behind.

use std::process::Command;

use crate::support::{Place, Said};

/// What every report must have, above 0. (Half of the tasks may be picked up before `submit` returns: there p50 is 0.)
const FIELDS: [&str; 12] = [
    "tasks",
    "enqueue_per_s",
    "limit_enqueue_per_s",
    "enqueue_one_per_s",
    "drain_per_s",
    "limit_drain_per_s",
    "pickup_p99_us",
    "start_p50_us",
    "start_p99_us",
    "claim_few_us",
    "claim_many_us",
    "peak_rss_mb",
];

/// Measures a little, and looks at the report.
fn measured(store: &str, args: &[&str]) -> Said {
    let place = Place::new();
    let said = place
        .lts(&[&["bench", store, "--tasks", "1000", "--waiting", "20000", "--idle", "1s", "--json"], args].concat());
    assert_eq!(said.code, 0, "{said:?}");
    let report: serde_json::Value = serde_json::from_str(said.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(report["store"], store);
    for field in FIELDS {
        assert!(report[field].as_f64().unwrap_or_default() > 0.0, "{field}: {report}");
    }
    assert!(report["pickup_p50_us"].is_number() && report["cpu_s"].is_number(), "{report}");
    assert!(std::fs::read_dir(place.path("")).unwrap().next().is_none(), "files are left");
    said
}

/// The same on a server, which counts what an idle scheduler asks.
fn measured_on_a_server(store: &str, url: &str) -> Said {
    let said = measured(store, &["--store", url]);
    assert!(said.stdout.contains("\"idle_statements_per_s\":"), "{said:?}");
    said
}

/// The name of what was made on a server, as the program told before it was made.
fn name(said: &Said) -> &str {
    let words = said.stderr.split_whitespace();
    words.into_iter().find(|word| word.starts_with("lts_bench_")).unwrap_or_else(|| panic!("no name: {said:?}"))
}

fn url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: scripts/servers/… prints it"))
}

/// What a program prints.
fn printed(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

mod in_this_process {
    use super::*;

    #[test]
    fn memory_is_measured() {
        measured("memory", &[]);
    }

    #[test]
    fn sqlite_is_measured_and_its_files_are_removed() {
        measured("sqlite", &["--dir", "."]);
    }

    #[test]
    fn a_cache_is_measured_in_front_of_sqlite() {
        measured("cached", &[]);
    }

    #[test]
    fn what_is_not_the_server_asked_for_is_refused() {
        let place = Place::new();
        for args in [&["bench", "postgres"][..], &["bench", "postgres", "--store", "redis://h"], &["bench", "redis"]] {
            let said = place.lts(args);
            assert_eq!(said.code, 2, "{said:?}");
            assert!(said.stderr.contains("postgres") || said.stderr.contains("redis"), "{said:?}");
        }
        let said = place.lts(&["bench", "postgres", "--store", "postgres://me:s3cret@127.0.0.1:1/work"]);
        assert_eq!(said.code, 6, "{said:?}");
        assert!(said.stderr.contains("127.0.0.1:1/work") && !said.stderr.contains("s3cret"), "{said:?}");
    }
}

mod postgres {
    use super::*;

    fn measured_and_gone(store: &str, prefix: &str) {
        let url = url("LTS_TEST_POSTGRES_URL");
        let said = measured_on_a_server(store, &format!("{prefix}{url}"));
        let schemas = printed("psql", &[&url, "-qAtc", "SELECT nspname FROM pg_namespace"]);
        assert!(schemas.contains("pg_catalog") && !schemas.contains(name(&said)), "{schemas}");
    }

    #[test]
    fn it_is_measured_in_a_schema_that_is_gone_afterwards() {
        measured_and_gone("postgres", "");
    }

    #[test]
    fn a_cache_is_measured_in_front_of_it() {
        measured_and_gone("cached", "cached+");
    }
}

mod mysql {
    use super::*;

    #[test]
    fn it_is_measured_in_a_database_that_is_gone_afterwards() {
        let url = url("LTS_TEST_MYSQL_URL");
        let said = measured_on_a_server("mysql", &url);
        let (login, place) = url.strip_prefix("mysql://").unwrap().split_once('@').unwrap();
        let ((user, password), (host, port)) =
            (login.split_once(':').unwrap(), place.split_once('/').unwrap().0.split_once(':').unwrap());
        let client = ["--no-defaults", "-N", "-h", host, "-P", port, "-u", user, "-e", "SHOW DATABASES"];
        let databases = printed("mariadb", &[&client[..], &[&format!("-p{password}")]].concat());
        assert!(databases.contains("information_schema") && !databases.contains(name(&said)), "{databases}");
    }
}

mod redis {
    use super::*;

    fn measured_and_gone(store: &str, prefix: &str) {
        let url = url("LTS_TEST_REDIS_URL");
        let said = measured_on_a_server(store, &format!("{prefix}{url}"));
        let keys = printed("redis-cli", &["-u", &url, "--scan", "--pattern", &format!("*{}*", name(&said))]);
        assert_eq!(keys.trim(), "");
    }

    #[test]
    fn it_is_measured_in_a_namespace_that_is_gone_afterwards() {
        measured_and_gone("redis", "");
    }

    #[test]
    fn a_cache_is_measured_in_front_of_it() {
        measured_and_gone("cached", "");
    }
}
