//! Puts the tasks of a batch into the store, in vectors, while the first of them run already.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use light_task_scheduler::store::{Answer, Inserted};
use light_task_scheduler::{Command, State, Store, TaskId};
use tokio::sync::mpsc::UnboundedSender;

use crate::batch::News;
use crate::batch::plan::{Mode, Todo, decide};
use crate::batch::report::Outputs;
use crate::batch::roster::{CHUNK, Entry, Roster};
use crate::exit::Result;
use crate::patience::patiently;

/// Feeds a store from a roster.
pub(crate) struct Feeder {
    /// Where to.
    pub(crate) store: Arc<dyn Store>,
    /// What.
    pub(crate) roster: Arc<Roster>,
    /// What is done with tasks that have ended before.
    pub(crate) mode: Mode,
    /// Whose old files are in the way of a task that runs again.
    pub(crate) outputs: Option<Outputs>,
    /// Set by others to stop feeding.
    pub(crate) stop: Arc<AtomicBool>,
    /// Whom to tell.
    pub(crate) news: UnboundedSender<News>,
}

impl Feeder {
    /// Feeds all of it, or as far as `stop` lets it; says how many were fed.
    pub(crate) async fn feed(self) -> Result<usize> {
        let mut fed = 0;
        for chunk in self.roster.entries().chunks(CHUNK) {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.insert(fed, chunk).await?;
            self.command(fed, chunk, Todo::Requeue, Command::Requeue).await?;
            self.command(fed, chunk, Todo::Start, Command::Start).await?;
            fed += chunk.len();
            self.tell(News::Fed(fed));
        }
        Ok(fed)
    }

    async fn insert(&self, first: usize, chunk: &[Entry]) -> Result<()> {
        let mut places = Vec::new();
        let mut tasks = Vec::new();
        for (place, entry) in (first..).zip(chunk) {
            if decide(entry.found, self.mode) == Todo::Insert {
                places.push(place);
                tasks.push(self.roster.task(entry)?);
            }
        }
        if tasks.is_empty() {
            return Ok(());
        }
        for (place, answer) in places.into_iter().zip(patiently(|| self.store.insert(tasks.clone())).await?) {
            match answer? {
                // Somebody else inserted it since we looked, and it may have ended already.
                Inserted::Existing(_, state) if state.is_terminal() => self.tell(News::Came(place, state)),
                Inserted::Removed(_) => self.tell(News::Removed(place)),
                Inserted::New(_) | Inserted::Existing(..) => {}
            }
        }
        Ok(())
    }

    async fn command(&self, first: usize, chunk: &[Entry], todo: Todo, command: Command) -> Result<()> {
        let chosen = || (first..).zip(chunk).filter(|(_, entry)| decide(entry.found, self.mode) == todo);
        let commands: Vec<(TaskId, Command)> = chosen().map(|(_, entry)| (entry.id.clone(), command)).collect();
        if commands.is_empty() {
            return Ok(());
        }
        if let (Command::Requeue, Some(outputs)) = (command, &self.outputs) {
            let ids: Vec<TaskId> = commands.iter().map(|(id, _)| id.clone()).collect();
            patiently(|| self.store.get(&ids)).await?.iter().flatten().for_each(|task| outputs.forget(task));
        }
        let answers = match command {
            // Once more could run the task twice, if it has ended since: who starts this program again decides.
            Command::Requeue => self.store.command(commands).await?,
            _ => patiently(|| self.store.command(commands.clone())).await?,
        };
        for ((place, _), answer) in chosen().zip(answers) {
            // Refused: somebody else has done the same since we looked, and it waits or runs.
            if answer == Answer::Missing {
                self.tell(News::Removed(place));
            }
        }
        Ok(())
    }

    fn tell(&self, news: News) {
        // An error means that nobody follows any more.
        let _ = self.news.send(news);
    }
}

/// Cancels these tasks; says which of them have ended by that.
pub(crate) async fn cancel(store: &dyn Store, ids: &[(usize, TaskId)]) -> Result<Vec<usize>> {
    let mut ended = Vec::new();
    for chunk in ids.chunks(CHUNK) {
        let commands: Vec<_> = chunk.iter().map(|(_, id)| (id.clone(), Command::Cancel)).collect();
        let answers = patiently(|| store.command(commands.clone())).await?;
        for ((place, _), answer) in chunk.iter().zip(answers) {
            if answer.state() == Some(State::Cancelled) {
                ended.push(*place);
            }
        }
    }
    Ok(ended)
}
