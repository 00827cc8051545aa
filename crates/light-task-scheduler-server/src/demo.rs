//! Tasks to look at: what `lts dev --demo` begins with.

use std::time::Duration;

use light_task_scheduler::executor::process::CommandSpec;
use light_task_scheduler::{Name, NewTask, QueueSettings, RateLimit, Result, RetryPolicy, Scheduler, Start, StoreExt};

use crate::command::{KIND, SHELL};

/// How often each of the small tasks is there.
const COPIES: usize = 12;

/// A task of the demonstration: its queue, its labels' value, its line, and how often it is tried.
struct Piece {
    queue: &'static str,
    customer: &'static str,
    line: &'static str,
    attempts: u32,
}

/// What is done again and again.
const SMALL: [Piece; 3] = [
    Piece { queue: "mail", customer: "acme", line: "echo 'to: orders@acme.example'; sleep 0.3", attempts: 3 },
    Piece { queue: "thumbnails", customer: "globex", line: "echo '1280x720 -> 320x180'; sleep 1", attempts: 1 },
    // It fails two times in three, and is tried again.
    Piece {
        queue: "imports",
        customer: "initech",
        line: "echo 'fetching the price list'; [ $(($(od -An -N1 -tu1 /dev/urandom) % 3)) = 0 ] || { echo 'connection reset by peer' >&2; exit 1; }",
        attempts: 4,
    },
];

/// What is there once.
const SINGLE: [Piece; 4] = [
    Piece {
        queue: "video",
        customer: "globex",
        line: "for i in $(seq 1 300); do echo \"frame $i of 300\"; sleep 0.2; done",
        attempts: 1,
    },
    Piece {
        queue: "video",
        customer: "acme",
        line: "for i in $(seq 1 100); do echo \"frame $i of 100\"; sleep 0.2; done; echo done >&2",
        attempts: 1,
    },
    Piece {
        queue: "reports",
        customer: "acme",
        line: "echo 'reading 2026-11'; echo 'no space left on device' >&2; exit 28",
        attempts: 1,
    },
    Piece { queue: "reports", customer: "initech", line: "echo 'totals: 1 204 833'", attempts: 1 },
];

/// Takes them in, once: the ids are the same at every start.
pub(crate) async fn fill(scheduler: &Scheduler) -> Result<()> {
    let settings = [
        ("video", QueueSettings { concurrency: Some(2), ..QueueSettings::default() }),
        ("mail", QueueSettings { rate: Some(RateLimit::per_second(1)), ..QueueSettings::default() }),
    ];
    for (queue, wanted) in settings {
        let queue = Name::new(queue)?;
        let paused = scheduler.store().queue(&queue).await?.paused;
        scheduler.store().set_queue(queue, QueueSettings { paused, ..wanted }).await?;
    }
    let mut tasks = Vec::new();
    for copy in 0..COPIES {
        for (place, piece) in SMALL.iter().enumerate() {
            tasks.push(piece.task(&format!("demo-{place}-{copy}"))?);
        }
    }
    for (place, piece) in SINGLE.iter().enumerate() {
        tasks.push(piece.task(&format!("demo-single-{place}"))?);
    }
    tasks.push(SINGLE[3].task("demo-held")?.start(Start::Held));
    tasks.push(SINGLE[3].task("demo-tonight")?.start(Start::After(Duration::from_secs(6 * 3_600))));
    scheduler.insert(tasks).await.map(drop)
}

impl Piece {
    fn task(&self, id: &str) -> Result<NewTask> {
        let spec = CommandSpec::new([SHELL[0], SHELL[1], self.line]);
        NewTask::new(KIND, &spec)?
            .id(id)?
            .queue(self.queue)?
            .label("customer", self.customer)?
            .timeout(Duration::from_secs(600))
            .retry(RetryPolicy::attempts(self.attempts))
            .label("demo", "true")
    }
}
