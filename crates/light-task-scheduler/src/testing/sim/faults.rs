//! What can go wrong, and how often it did.

/// One kind of fault that the simulator injects, or a rare situation that it must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it, and the table prints them")]
#[repr(u8)]
pub enum Fault {
    StoreErrorBefore,
    StoreErrorAfter,
    StoreLatency,
    PartitionErrors,
    PartitionHangs,
    Pause,
    HintsLost,
    ClockForward,
    ClockBack,
    CrashAtTime,
    CrashBeforeCall,
    CrashBeforeReply,
    CrashInExecutor,
    StartFailed,
    Drain,
    HandOver,
    StartSlow,
    StartReplySlow,
    StartBusy,
    StartRefused,
    RunFailed,
    RunPanicked,
    RunLost,
    PushDuplicate,
    PushLate,
    PushLost,
    PushToStore,
    PushForged,
    EngineUnreachable,
    KillIgnored,
    ResultsFailed,
    DiedWithReplica,
    Adopted,
    DeclaredDead,
    DeclaredDeadAlive,
    TimedOut,
    DeadlineExpired,
    DeadlineRunning,
    CancelWaiting,
    CancelRunning,
    CancelTooLate,
    StaleRefused,
    AlreadyApplied,
    ClaimRepeated,
    ExportFailed,
    ExportRetried,
    Requeued,
    Deleted,
    Retired,
    DrainInTime,
    Awaited,
    QueuePaused,
    HeldStarted,
    /// A task that waited was given another time or priority.
    Rescheduled,
    InsertRepeated,
    /// An operator had a replica drain, and it ended.
    DrainedFromAfar,
}

/// How many kinds there are.
pub const FAULTS: usize = Fault::DrainedFromAfar as usize + 1;

impl Fault {
    /// All of them.
    pub const ALL: [Fault; FAULTS] = [
        Fault::StoreErrorBefore,
        Fault::StoreErrorAfter,
        Fault::StoreLatency,
        Fault::PartitionErrors,
        Fault::PartitionHangs,
        Fault::Pause,
        Fault::HintsLost,
        Fault::ClockForward,
        Fault::ClockBack,
        Fault::CrashAtTime,
        Fault::CrashBeforeCall,
        Fault::CrashBeforeReply,
        Fault::CrashInExecutor,
        Fault::StartFailed,
        Fault::Drain,
        Fault::HandOver,
        Fault::StartSlow,
        Fault::StartReplySlow,
        Fault::StartBusy,
        Fault::StartRefused,
        Fault::RunFailed,
        Fault::RunPanicked,
        Fault::RunLost,
        Fault::PushDuplicate,
        Fault::PushLate,
        Fault::PushLost,
        Fault::PushToStore,
        Fault::PushForged,
        Fault::EngineUnreachable,
        Fault::KillIgnored,
        Fault::ResultsFailed,
        Fault::DiedWithReplica,
        Fault::Adopted,
        Fault::DeclaredDead,
        Fault::DeclaredDeadAlive,
        Fault::TimedOut,
        Fault::DeadlineExpired,
        Fault::DeadlineRunning,
        Fault::CancelWaiting,
        Fault::CancelRunning,
        Fault::CancelTooLate,
        Fault::StaleRefused,
        Fault::AlreadyApplied,
        Fault::ClaimRepeated,
        Fault::ExportFailed,
        Fault::ExportRetried,
        Fault::Requeued,
        Fault::Deleted,
        Fault::Retired,
        Fault::DrainInTime,
        Fault::Awaited,
        Fault::QueuePaused,
        Fault::HeldStarted,
        Fault::Rescheduled,
        Fault::InsertRepeated,
        Fault::DrainedFromAfar,
    ];
}

/// How often each fault happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultCounts([u64; FAULTS]);

impl Default for FaultCounts {
    fn default() -> Self {
        FaultCounts([0; FAULTS])
    }
}

impl FaultCounts {
    pub(super) fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often this one.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &FaultCounts) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Those that never happened.
    pub fn missing(&self) -> Vec<Fault> {
        Fault::ALL.into_iter().filter(|fault| self.of(*fault) == 0).collect()
    }
}
