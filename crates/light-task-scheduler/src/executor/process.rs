//! Commands as child processes that survive a crash of the scheduler.
