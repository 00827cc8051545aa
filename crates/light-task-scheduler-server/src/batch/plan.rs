//! What is to be done with a task of a batch that may be there already. Pure.

use light_task_scheduler::State;

/// What the user wants to be done with tasks that have ended before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Leave them.
    Resume,
    /// Run those again that did not succeed.
    RetryFailed,
    /// Run all of them again.
    Again,
}

/// What is to be done with one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Todo {
    /// It is new: store it.
    Insert,
    /// It waits or runs: it will end.
    Wait,
    /// It waits for somebody to start it.
    Start,
    /// It has ended, and runs again.
    Requeue,
    /// It has ended, and that is that.
    Done(State),
}

/// Decides it.
pub(crate) fn decide(found: Option<State>, mode: Mode) -> Todo {
    match (found, mode) {
        (None, _) => Todo::Insert,
        (Some(State::Held), _) => Todo::Start,
        (Some(State::Waiting | State::Running | State::Exporting), _) => Todo::Wait,
        (Some(State::Succeeded), Mode::Again) => Todo::Requeue,
        (Some(State::Failed | State::Cancelled), Mode::Again | Mode::RetryFailed) => Todo::Requeue,
        (Some(state @ (State::Succeeded | State::Failed | State::Cancelled)), _) => Todo::Done(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_follows_from_state_and_wish() {
        use Mode::{Again, Resume, RetryFailed};
        use Todo::{Done, Insert, Requeue, Start, Wait};
        let table = [
            (None, [Insert, Insert, Insert]),
            (Some(State::Held), [Start, Start, Start]),
            (Some(State::Waiting), [Wait, Wait, Wait]),
            (Some(State::Running), [Wait, Wait, Wait]),
            (Some(State::Exporting), [Wait, Wait, Wait]),
            (Some(State::Succeeded), [Done(State::Succeeded), Done(State::Succeeded), Requeue]),
            (Some(State::Failed), [Done(State::Failed), Requeue, Requeue]),
            (Some(State::Cancelled), [Done(State::Cancelled), Requeue, Requeue]),
        ];
        for (found, expected) in table {
            assert_eq!([Resume, RetryFailed, Again].map(|mode| decide(found, mode)), expected, "{found:?}");
        }
    }
}
