//! Seeded bugs: the simulator has to find every one of them, or it proves nothing.
//!
//! The places where they sit ask `bug!(Name)`, which is `false` at compile time without feature `testing`.
//! A switch is per thread, so that simulations side by side do not mix.

use std::cell::Cell;

/// One bug that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// Writes are taken from whoever sends them.
    NoFenceCheck,
    /// A claim does not count as an attempt.
    AttemptNotCounted,
    /// The fence begins again at zero when a task is requeued.
    RunResetByRequeue,
    /// A success that comes after the wish to cancel wins.
    SuccessBeatsCancel,
    /// A retry that is reported twice is applied twice.
    RetryAppliedTwice,
    /// A result that cannot be saved sends the task back to be executed again.
    ExportFailureReruns,
    /// One look at an expired lease proves a death.
    RescueAfterOneLook,
    /// The store believes the rescuer, without looking at the lease again.
    RescueWithoutRecheck,
    /// One more task of a queue runs than its limit allows.
    LimitOffByOne,
    /// What was claimed is started although the lease is over.
    StartPastLease,
    /// A claim without an answer is forgotten, and a new one made.
    ClaimReplyForgotten,
    /// The dispatcher trusts the hints: no slow poll.
    NoSlowPoll,
    /// An adopted task is started instead of found again.
    AdoptionStartsAgain,
    /// Tasks that the store says are ours and that we do not have are left alone.
    MismatchIgnored,
    /// What is left of a run is removed before its end is stored.
    ReleaseBeforeOutcome,
    /// The output of a failed export is removed, so that the export cannot be tried again.
    ExportOutputReleased,
    /// A stop that could not be confirmed is taken for one.
    UnconfirmedIsDead,
    /// A run that is gone counts as a success.
    LostIsSuccess,
    /// Who drains is given tasks until it has heard of it.
    DrainerClaims,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 19] = [
        Bug::NoFenceCheck,
        Bug::AttemptNotCounted,
        Bug::RunResetByRequeue,
        Bug::SuccessBeatsCancel,
        Bug::RetryAppliedTwice,
        Bug::ExportFailureReruns,
        Bug::RescueAfterOneLook,
        Bug::RescueWithoutRecheck,
        Bug::LimitOffByOne,
        Bug::StartPastLease,
        Bug::ClaimReplyForgotten,
        Bug::NoSlowPoll,
        Bug::AdoptionStartsAgain,
        Bug::MismatchIgnored,
        Bug::ReleaseBeforeOutcome,
        Bug::ExportOutputReleased,
        Bug::UnconfirmedIsDead,
        Bug::LostIsSuccess,
        Bug::DrainerClaims,
    ];
}

thread_local! {
    static ON: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Switches a bug on, or all off, for this thread.
pub fn switch(bug: Option<Bug>) {
    ON.set(bug);
}

/// Whether this bug is on in this thread.
pub fn is_on(bug: Bug) -> bool {
    ON.get() == Some(bug)
}
