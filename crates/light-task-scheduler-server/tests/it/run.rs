//! `lts run`: ends as the command ends.

use rustix::process::Signal;

use crate::support::Place;

#[test]
fn output_and_exit_code_are_the_commands_own() {
    let place = Place::new();
    let said = place.lts(&["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (7, "out\n", "err\n"));
    assert_eq!(place.lts(&["run", "--", "true"]).code, 0);
    assert_eq!(place.lts(&["run", "--", "sh", "-c", "kill -9 $$"]).code, 137);
    let missing = place.lts(&["run", "--", "no-such-program"]);
    assert!(missing.code == 127 && missing.stderr.contains("no such program"), "{missing:?}");
    let late = place.lts(&["run", "--timeout", "100ms", "--", "sleep", "60"]);
    assert!(late.code == 7 && late.stderr.contains("timeout"), "{late:?}");
    place.assert_no_process_stays();
    let fed =
        place.write("in", "hello").lts(&["run", "--stdin", "in", "--env", "A=b", "--", "sh", "-c", "cat; echo $A"]);
    assert_eq!(fed.stdout, "hellob\n");
}

#[test]
fn what_an_operator_drains_from_afar_comes_to_its_end() {
    let place = Place::new();
    place.fifo("ready");
    place.fifo("go");
    let run = place.start(&["run", "--", "sh", "-c", "echo > ready; cat go; exit 3"]);
    place.read("ready");
    let listed = place.lts(&["worker", "ls", "--json"]).json();
    let drained = place.lts(&["worker", "drain", listed[0]["id"].as_str().unwrap()]);
    assert_eq!(drained.code, 0, "{drained:?}");
    std::fs::write(place.path("go"), "gone").unwrap();
    let said = run.end();
    assert_eq!((said.code, said.stdout.as_str()), (3, "gone"), "{said:?}");
    place.assert_no_process_stays();
}

#[test]
fn ctrl_c_cancels() {
    let place = Place::new();
    place.fifo("ready");
    let run = place.start(&["run", "--", "sh", "-c", "echo > ready; sleep 60"]);
    place.read("ready");
    run.signal(Signal::INT);
    let said = run.end();
    assert_eq!(said.code, 130, "{said:?}");
    assert_eq!(place.tasks(&["--state", "cancelled"]).len(), 1);
    place.assert_no_process_stays();
}

#[test]
fn ctrl_c_twice_detaches_and_cancel_finds_what_nobody_owns() {
    let place = Place::new();
    place.fifo("ready");
    let mut run = place.start(&["run", "--id", "mine", "--", "sh", "-c", "echo > ready; sleep 60"]);
    place.read("ready");
    run.signal(Signal::INT);
    run.hear("cancelling");
    run.signal(Signal::INT);
    let said = run.end();
    assert!(said.code == 130 && said.stderr.contains("detached"), "{said:?}");
    assert!(!place.processes().is_empty(), "it goes on");
    assert_eq!(place.tasks(&["--state", "running"]).len(), 1);
    let cancelled = place.lts(&["cancel", "mine"]);
    assert_eq!((cancelled.code, cancelled.stdout.as_str()), (0, "mine cancelled\n"), "{cancelled:?}");
    place.assert_no_process_stays();
}

#[test]
fn a_job_of_a_remote_service_ends_with_what_that_answers() {
    use std::io::{Read, Write};
    let place = Place::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/work", listener.local_addr().unwrap());
    let service = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let (mut request, mut part) = (String::new(), [0; 4_096]);
        while !request.ends_with(r#"{"n":7}"#) {
            let read = connection.read(&mut part).unwrap();
            request.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        let answer = r#"{"done":true}"#;
        write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).unwrap();
        request
    });
    let said = place.lts(&["run", "--http", "push", "--url", &url, "--input", r#"{"n": 7}"#]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "{\"done\":true}\n"), "{said:?}");
    assert!(service.join().unwrap().starts_with("POST /work HTTP/1.1"));
    let unknown = place.lts(&["run", "--http", "psuh", "--url", &url]);
    assert!(unknown.code != 0 && unknown.stderr.contains("azure-lro"), "{unknown:?}");
}
