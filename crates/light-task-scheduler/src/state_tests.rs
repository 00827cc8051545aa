//! Every legal and every illegal move, from one table.

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);
const LATER: Timestamp = Timestamp::from_micros(2_000_000_000);
const ME: ReplicaId = ReplicaId::from_bytes([1; 16]);
const OTHER: ReplicaId = ReplicaId::from_bytes([2; 16]);
const RUN: u64 = 7;
const TOKEN: Token = Token { owner: ME, run: RUN };

fn record(state: State) -> Record {
    let mut record = Record { state, run: RUN, execution: RUN, attempt: 1, ..Record::default() };
    if !matches!(state, State::Held | State::Waiting) {
        record.owner = Some(ME);
        record.started_at = Some(NOW);
    }
    record
}

fn failure(kind: FailureKind) -> Failure {
    Failure::new(kind, "why")
}

fn result() -> ResultRef {
    ResultRef::Inline(Payload::from_bytes(*b"1"))
}

fn reschedule(run_at: Option<Timestamp>, priority: Option<i32>) -> Event {
    Event::Command(Command::Reschedule { run_at, priority })
}

fn events() -> Vec<(&'static str, Event)> {
    let run = |event| Event::Run(TOKEN, event);
    vec![
        ("claim", Event::Claim { owner: OTHER }),
        ("adopt", Event::Adopt { owner: OTHER }),
        ("expire", Event::Expire { deadline: NOW }),
        ("started", run(RunEvent::Started(None))),
        ("progress", run(RunEvent::Progress(Progress::default()))),
        ("unconfirmed", run(RunEvent::StopUnconfirmed)),
        ("outcome", run(RunEvent::Outcome(None))),
        ("complete", run(RunEvent::Complete(result()))),
        ("retry", run(RunEvent::Retry(LATER, failure(FailureKind::Error)))),
        ("release", run(RunEvent::Release(LATER, failure(FailureKind::Drained)))),
        ("fail", run(RunEvent::Fail(failure(FailureKind::Error)))),
        ("cancelled", run(RunEvent::Cancelled)),
        ("start", Event::Command(Command::Start)),
        ("cancel", Event::Command(Command::Cancel)),
        ("requeue", Event::Command(Command::Requeue)),
        ("retry export", Event::Command(Command::RetryExport)),
        ("delete", Event::Command(Command::Delete)),
        ("reschedule", reschedule(Some(LATER), None)),
        ("run now", reschedule(Some(Timestamp::default()), None)),
        ("prioritise", reschedule(None, Some(3))),
    ]
}

/// One row per event; one column per state, in the order held, waiting, running, exporting, succeeded,
/// failed, cancelled. A state's name: moves there. `=`: already. `x`: gone. `-`: refused.
const TABLE: [(&str, [&str; 7]); 20] = [
    ("claim", ["-", "running", "-", "-", "-", "-", "-"]),
    ("adopt", ["-", "-", "running", "exporting", "-", "-", "-"]),
    ("expire", ["failed", "failed", "-", "-", "-", "-", "-"]),
    ("started", ["-", "-", "running", "-", "-", "-", "-"]),
    ("progress", ["-", "-", "running", "-", "-", "-", "-"]),
    ("unconfirmed", ["-", "-", "running", "-", "-", "-", "-"]),
    ("outcome", ["-", "-", "exporting", "=", "-", "-", "-"]),
    ("complete", ["-", "-", "succeeded", "succeeded", "=", "-", "-"]),
    ("retry", ["-", "-", "waiting", "-", "-", "-", "-"]),
    ("release", ["-", "-", "waiting", "-", "-", "-", "-"]),
    ("fail", ["-", "-", "failed", "failed", "-", "=", "-"]),
    ("cancelled", ["-", "-", "-", "-", "-", "-", "="]),
    ("start", ["waiting", "=", "-", "-", "-", "-", "-"]),
    ("cancel", ["cancelled", "cancelled", "running", "-", "-", "-", "="]),
    ("requeue", ["-", "-", "-", "-", "waiting", "waiting", "waiting"]),
    ("retry export", ["-", "-", "-", "-", "-", "-", "-"]),
    ("delete", ["x", "-", "-", "-", "x", "x", "x"]),
    ("reschedule", ["held", "waiting", "-", "-", "-", "-", "-"]),
    ("run now", ["=", "=", "-", "-", "-", "-", "-"]),
    ("prioritise", ["held", "waiting", "-", "-", "-", "-", "-"]),
];

fn shown(before: &Record, after: &Record, answer: &Result<Moved, Refusal>) -> String {
    match answer {
        Err(_) => {
            assert_eq!(before, after, "a refusal changes nothing");
            "-".to_owned()
        }
        Ok(Moved { already: true, .. }) => {
            assert_eq!(before, after, "a repeated event changes nothing");
            "=".to_owned()
        }
        Ok(Moved { removed: true, .. }) => "x".to_owned(),
        Ok(_) => after.state.to_string(),
    }
}

#[test]
fn every_move_from_every_state() {
    for ((name, event), (row, expected)) in events().into_iter().zip(TABLE) {
        assert_eq!(name, row);
        for (state, expected) in State::ALL.into_iter().zip(expected) {
            let before = record(state);
            let mut after = before.clone();
            let answer = step(&mut after, event.clone(), NOW);
            assert_eq!(shown(&before, &after, &answer), expected, "{name} from {state}: {answer:?}");
            if after.state.is_terminal() && !before.state.is_terminal() {
                assert_eq!(after.finished_at, Some(NOW), "{name} from {state}");
            }
        }
    }
}

#[test]
fn a_stale_token_changes_nothing_from_any_state() {
    for state in State::ALL {
        for token in [Token { owner: OTHER, run: RUN }, Token { owner: ME, run: RUN - 1 }] {
            for (name, event) in events() {
                let Event::Run(_, event) = event else { continue };
                let before = record(state);
                let mut after = before.clone();
                assert_eq!(step(&mut after, Event::Run(token, event), NOW), Err(Refusal::Stale), "{name} from {state}");
                assert_eq!(before, after);
            }
        }
    }
}

#[test]
fn once_cancel_is_requested_every_end_is_cancelled_and_repeats_are_already() {
    let ends = ["outcome", "complete", "retry", "release", "fail", "cancelled"];
    for (name, event) in events().into_iter().filter(|(name, _)| ends.contains(name)) {
        let mut record = record(State::Running);
        step(&mut record, Event::Command(Command::Cancel), NOW).unwrap();
        assert!(step(&mut record, Event::Command(Command::Cancel), NOW).unwrap().already);
        assert!(!step(&mut record, event.clone(), NOW).unwrap().already, "{name}");
        assert_eq!(record.state, State::Cancelled, "{name}");
        assert!(step(&mut record, event, NOW).unwrap().already, "{name}");
    }
}

#[test]
fn a_cancel_after_the_outcome_is_too_late() {
    for state in [State::Exporting, State::Succeeded, State::Failed] {
        let answer = step(&mut record(state), Event::Command(Command::Cancel), NOW);
        assert_eq!(answer, Err(Refusal::TooLate(state)));
    }
}

#[test]
fn a_claim_moves_the_fence_and_counts_the_attempt() {
    let mut record = record(State::Waiting);
    step(&mut record, Event::Claim { owner: OTHER }, NOW).unwrap();
    assert_eq!((record.run, record.execution, record.attempt, record.owner), (RUN + 1, RUN + 1, 2, Some(OTHER)));
    step(&mut record, Event::Adopt { owner: ME }, LATER).unwrap();
    assert_eq!((record.run, record.execution, record.attempt), (RUN + 2, RUN + 1, 2), "adoption keeps the execution");
    assert_eq!(record.started_at, Some(NOW), "timeouts go on from the claim");
}

#[test]
fn nothing_is_claimed_before_its_time_nor_expired_before_its_deadline() {
    let mut early = Record { run_at: LATER, ..record(State::Waiting) };
    assert_eq!(step(&mut early, Event::Claim { owner: ME }, NOW), Err(Refusal::NotDue));
    assert_eq!(step(&mut early, Event::Expire { deadline: LATER }, NOW), Err(Refusal::NotDue));
}

#[test]
fn rescheduling_moves_the_time_and_nothing_else() {
    let old = Record { run_at: LATER, ..record(State::Waiting) };
    let to = |at: Option<Timestamp>| {
        let mut record = old.clone();
        let moved = step(&mut record, reschedule(at, None), NOW).unwrap();
        assert_eq!(record, Record { run_at: record.run_at, ..old.clone() });
        assert_eq!(moved.already, record == old);
        assert_eq!(step(&mut record, reschedule(at, None), NOW).map(|moved| moved.already), Ok(true), "once more");
        record.run_at
    };
    let sooner = NOW + std::time::Duration::from_secs(1);
    assert_eq!((to(Some(sooner)), to(Some(LATER)), to(None)), (sooner, LATER, LATER));
    assert_eq!(to(Some(Timestamp::default())), NOW, "a time that has passed means now");
}

#[test]
fn what_is_due_stays_in_its_place_whichever_time_of_the_past_is_wished() {
    let mut due = Record { run_at: Timestamp::from_micros(5), ..record(State::Waiting) };
    for at in [Timestamp::default(), Timestamp::from_micros(9), NOW] {
        assert!(step(&mut due, reschedule(Some(at), None), NOW).unwrap().already);
        assert_eq!(due.run_at, Timestamp::from_micros(5));
    }
    let moved = step(&mut due, reschedule(Some(NOW), Some(7)), NOW).unwrap();
    assert_eq!((moved.already, moved.priority, due.run_at), (false, Some(7), Timestamp::from_micros(5)));
}

#[test]
fn a_held_task_keeps_the_time_it_was_given() {
    let mut held = record(State::Held);
    step(&mut held, reschedule(Some(LATER), None), NOW).unwrap();
    step(&mut held, Event::Command(Command::Start), NOW).unwrap();
    assert_eq!((held.state, held.run_at), (State::Waiting, LATER));
}

#[test]
fn release_is_an_interruption_and_losses_add_up_until_a_charged_end() {
    let mut record = record(State::Running);
    step(&mut record, Event::Run(TOKEN, RunEvent::Release(NOW, failure(FailureKind::Lost))), NOW).unwrap();
    assert_eq!((record.interruptions, record.lost_in_a_row), (1, 1));
    for (kind, lost) in [(FailureKind::Drained, 1), (FailureKind::Lost, 2)] {
        step(&mut record, Event::Claim { owner: ME }, NOW).unwrap();
        let token = record.token().unwrap();
        step(&mut record, Event::Run(token, RunEvent::Release(NOW, failure(kind))), NOW).unwrap();
        assert_eq!(record.lost_in_a_row, lost);
    }
    step(&mut record, Event::Claim { owner: ME }, NOW).unwrap();
    let token = record.token().unwrap();
    step(&mut record, Event::Run(token, RunEvent::Retry(NOW, failure(FailureKind::Error))), NOW).unwrap();
    assert_eq!((record.interruptions, record.lost_in_a_row, record.attempt), (3, 0, 4));
}

#[test]
fn requeue_keeps_the_fence_and_starts_a_generation() {
    let mut record = record(State::Running);
    step(&mut record, Event::Run(TOKEN, RunEvent::Fail(failure(FailureKind::Error))), NOW).unwrap();
    step(&mut record, Event::Command(Command::Requeue), LATER).unwrap();
    assert_eq!((record.state, record.run, record.generation, record.attempt), (State::Waiting, RUN, 1, 0));
    assert_eq!(record.attempts().len(), 1, "the history stays");
    assert_eq!(record.failure(), None);
    let late = step(&mut record, Event::Run(TOKEN, RunEvent::Fail(failure(FailureKind::Error))), LATER);
    assert_eq!(late, Err(Refusal::Stale), "a report from before the requeue is stale");
}

#[test]
fn a_stored_result_becomes_garbage_with_requeue_and_delete() {
    let stored = ResultRef::Stored { key: "k".into(), len: 1, hash: "h".into() };
    for command in [Command::Requeue, Command::Delete] {
        let mut record = record(State::Running);
        step(&mut record, Event::Run(TOKEN, RunEvent::Complete(stored.clone())), NOW).unwrap();
        let moved = step(&mut record, Event::Command(command), NOW).unwrap();
        assert_eq!(moved.garbage.as_deref(), Some("k"));
    }
}

#[test]
fn a_failed_export_keeps_output_and_handle_for_another_try() {
    let mut record = record(State::Running);
    let handle = Some(Handle::new("h").unwrap());
    for event in [
        RunEvent::Started(handle.clone()),
        RunEvent::Outcome(Some(Payload::from_bytes(*b"out"))),
        RunEvent::Fail(failure(FailureKind::Export)),
    ] {
        step(&mut record, Event::Run(TOKEN, event), NOW).unwrap();
    }
    step(&mut record, Event::Command(Command::RetryExport), LATER).unwrap();
    assert_eq!(record.state, State::Exporting);
    assert_eq!(record.token(), None, "nobody owns it: any replica adopts it");
    assert_eq!((record.handle(), record.output().map(Payload::as_bytes)), (handle.as_ref(), Some(&b"out"[..])));
}

#[test]
fn the_history_is_bounded_and_leaves_out_a_busy_executor() {
    let mut record = Record { state: State::Waiting, ..Record::default() };
    for n in 0..=ATTEMPTS_MAX {
        for kind in [FailureKind::Busy, FailureKind::Error] {
            step(&mut record, Event::Claim { owner: ME }, NOW).unwrap();
            let token = record.token().unwrap();
            let failure = Failure::new(kind, n.to_string());
            step(&mut record, Event::Run(token, RunEvent::Retry(NOW, failure)), NOW).unwrap();
        }
    }
    let attempts = record.attempts();
    assert_eq!(attempts.len(), ATTEMPTS_MAX);
    assert_eq!(attempts[0].failure.message, "1", "the oldest went first");
    assert!(attempts.iter().all(|attempt| attempt.failure.kind == FailureKind::Error));
}
