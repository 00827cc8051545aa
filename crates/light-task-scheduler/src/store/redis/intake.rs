//! Taking tasks in. Small calls that come at the same time go to the server together, large ones alone.
//!
//! Nothing waits for company: a call goes as soon as fewer than [`FLIGHTS_MAX`] scripts are under way, and takes with it
//! what has come meanwhile.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::calls::{Calls, Part};
use super::script::SCRIPTS;
use super::{events, rows};
use crate::clock::{SystemClock, Timestamp, micros};
use crate::database::redis::error::unreadable;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Inserted, check_batch};
use crate::task::{Name, NewTask, Start, TaskId, fingerprint};

/// How many scripts with tasks of small calls are under way at once: one is run while another is made.
const FLIGHTS_MAX: usize = 2;
/// A call with more tasks is large.
const SMALL_CALL: usize = 100;

/// The tasks of small calls, on their way.
#[derive(Debug, Default)]
pub(super) struct Intake(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    calls: VecDeque<Waiter>,
    flights: usize,
}

/// A call that waits.
#[derive(Debug)]
struct Waiter {
    tasks: Vec<Prepared>,
    reply: oneshot::Sender<Result<Vec<Result<Inserted>>>>,
}

impl Intake {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes tasks in.
pub(super) async fn insert(calls: &Arc<Calls>, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
    check_batch(tasks.len())?;
    let (mut answers, mut prepared) = (Vec::with_capacity(tasks.len()), Vec::with_capacity(tasks.len()));
    for task in tasks {
        let task = Prepared::new(task);
        // In the place of one that is refused at once stands its refusal, the others follow.
        answers.push(task.as_ref().err().map(|e| Err(Error::new(e.kind(), e.to_string()))));
        prepared.extend(task);
    }
    let told = if prepared.len() > SMALL_CALL {
        send(calls, &prepared).await?
    } else if prepared.is_empty() {
        Vec::new()
    } else {
        together(calls, prepared).await?
    };
    let mut told = told.into_iter();
    answers.into_iter().map(|refused| refused.or_else(|| told.next()).ok_or_else(|| unreadable("an answer"))).collect()
}

/// Sends the tasks of a small call with those of others.
async fn together(calls: &Arc<Calls>, tasks: Vec<Prepared>) -> Result<Vec<Result<Inserted>>> {
    let (reply, answer) = oneshot::channel();
    let flies = {
        let mut waiting = calls.intake.lock();
        waiting.calls.push_back(Waiter { tasks, reply });
        waiting.flights < FLIGHTS_MAX && {
            waiting.flights += 1;
            true
        }
    };
    if flies {
        tokio::spawn(fly(Flight { calls: calls.clone() }));
    }
    answer.await.unwrap_or_else(|_| Err(Error::unavailable("the runtime that sent the tasks to redis has ended")))
}

/// One of the scripts that are under way.
struct Flight {
    calls: Arc<Calls>,
}

impl Drop for Flight {
    /// Also if its runtime ends: who waits then is told so, as nobody else may come to take it along.
    fn drop(&mut self) {
        let abandoned = {
            let mut waiting = self.calls.intake.lock();
            waiting.flights -= 1;
            mem::take(&mut waiting.calls)
        };
        drop(abandoned);
    }
}

/// Sends what waits until nothing does.
async fn fly(flight: Flight) {
    loop {
        let waiters = flight.next();
        if waiters.is_empty() {
            return;
        }
        let (mut sizes, mut tasks, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        for waiter in waiters {
            sizes.push(waiter.tasks.len());
            tasks.extend(waiter.tasks);
            replies.push(waiter.reply);
        }
        let mut told = send(&flight.calls, &tasks).await.map(Vec::into_iter);
        for (reply, size) in replies.into_iter().zip(sizes) {
            let answer = match &mut told {
                Ok(told) => Ok(told.take(size).collect()),
                Err(e) => Err(Error::new(e.kind(), e.to_string())),
            };
            // An error means that the caller has gone.
            let _ = reply.send(answer);
        }
    }
}

impl Flight {
    /// As many waiting calls as one script takes; none: nothing waits.
    fn next(&self) -> Vec<Waiter> {
        let mut waiting = self.calls.intake.lock();
        let (mut part, mut waiters) = (Part::default(), Vec::new());
        while !part.is_full()
            && let Some(waiter) = waiting.calls.pop_front()
        {
            waiter.tasks.iter().for_each(|task| part.add(task.spec.len()));
            waiters.push(waiter);
        }
        waiters
    }
}

/// A task as it is sent.
#[derive(Debug)]
struct Prepared {
    id: TaskId,
    /// The id was made just now.
    is_fresh: bool,
    queue: Name,
    kind: Name,
    priority: i32,
    start: Start,
    deadline: Option<Timestamp>,
    fingerprint: [u8; 16],
    spec: Vec<u8>,
}

impl Prepared {
    fn new(task: NewTask) -> Result<Self> {
        task.check()?;
        Ok(Prepared {
            is_fresh: task.id.is_none(),
            deadline: task.options.as_ref().and_then(|options| options.deadline),
            fingerprint: fingerprint(&task.kind, &task.payload),
            spec: rows::spec(&task)?,
            id: task.id.unwrap_or_else(|| TaskId::generate(&SystemClock)),
            queue: task.queue,
            kind: task.kind,
            priority: task.priority,
            start: task.start,
        })
    }

    /// Whether a script may treat both alike.
    fn is_like(&self, other: &Self) -> bool {
        self.is_fresh == other.is_fresh
            && self.is_large() == other.is_large()
            && (self.priority, self.start, self.deadline) == (other.priority, other.start, other.deadline)
            && (&self.queue, &self.kind) == (&other.queue, &other.kind)
    }

    fn is_large(&self) -> bool {
        rows::is_large(&self.spec)
    }
}

/// Sends tasks, in parts if they are many.
async fn send(calls: &Calls, tasks: &[Prepared]) -> Result<Vec<Result<Inserted>>> {
    let mut answers = Vec::with_capacity(tasks.len());
    while answers.len() < tasks.len() {
        let mut part = Part::default();
        let rest = &tasks[answers.len()..];
        rest.iter()
            .take_while(|task| {
                !part.is_full() && {
                    part.add(task.spec.len());
                    true
                }
            })
            .count();
        let (now, _) = rest.split_at(part.items);
        let mut command = calls.command(&SCRIPTS.insert);
        now.chunk_by(Prepared::is_like).for_each(|group| add_group(&mut command, group));
        match calls.write(&SCRIPTS.insert, &command).await {
            Ok(written) => {
                let told = events::answers(&written.body, now.len(), |letter, digit| Ok((letter, digit)))?;
                for (task, (letter, digit)) in now.iter().zip(told) {
                    answers.push(inserted(&task.id, letter, digit)?);
                }
            }
            // The server took none of this part, and says so before it does anything.
            Err(e) if e.kind() == ErrorKind::Full => {
                answers.extend(now.iter().map(|_| Err(Error::new(ErrorKind::Full, e.to_string()))));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(answers)
}

/// Adds tasks that are alike; there is at least one.
fn add_group(command: &mut redis::Cmd, group: &[Prepared]) {
    let like = &group[0];
    let (start, time) = match like.start {
        Start::Now => ("now", 0),
        Start::At(time) => ("at", time.as_micros()),
        Start::After(delay) => ("after", micros(delay)),
        Start::Held => ("held", 0),
    };
    let deadline = like.deadline.map(|deadline| deadline.as_micros().to_string()).unwrap_or_default();
    command.arg(rows::lane(&like.queue, &like.kind)).arg(rows::rank(like.priority)).arg(start).arg(time).arg(deadline);
    command.arg(u8::from(like.is_fresh)).arg(u8::from(like.is_large())).arg(group.len());
    for task in group {
        task.id.with_str(|id| _ = command.arg(id));
        if task.is_large() {
            command.arg(&task.fingerprint[..]).arg(&task.spec);
        } else {
            command.arg([&task.fingerprint[..], &task.spec].concat());
        }
    }
}

fn inserted(id: &TaskId, letter: u8, digit: u8) -> Result<Result<Inserted>> {
    let id = id.clone();
    Ok(match letter {
        b'n' => Ok(Inserted::New(id)),
        b'r' => Ok(Inserted::Removed(id)),
        b'c' => {
            let message = format!("the id {id} belongs to a task with another kind or payload; choose another id");
            Err(Error::new(ErrorKind::Conflict, message))
        }
        b'e' => Ok(Inserted::Existing(id, events::state(digit)?)),
        _ => return Err(unreadable("an answer")),
    })
}
