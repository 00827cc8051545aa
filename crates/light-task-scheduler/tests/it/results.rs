//! Every result store and log store against the conformance suites.

use std::sync::Arc;

use async_trait::async_trait;
use light_task_scheduler::results::{DirectoryLogs, DirectoryResults, LogStore, ResultStore};
use light_task_scheduler::testing::conformance::results::Subject;
use light_task_scheduler::{log_store_conformance, result_store_conformance};

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Directory(tempfile::tempdir().expect("a temporary directory"))
    }
}

#[async_trait]
impl Subject<dyn ResultStore> for Directory {
    fn durable(&self) -> bool {
        true
    }

    async fn open(&self) -> Arc<dyn ResultStore> {
        Arc::new(DirectoryResults::open(self.0.path().join("results")).await.expect("it opens"))
    }
}

#[async_trait]
impl Subject<dyn LogStore> for Directory {
    fn durable(&self) -> bool {
        true
    }

    async fn open(&self) -> Arc<dyn LogStore> {
        Arc::new(DirectoryLogs::open(self.0.path().join("logs")).await.expect("it opens"))
    }
}

result_store_conformance!(directory_results, Directory::new());
log_store_conformance!(directory_logs, Directory::new());

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use light_task_scheduler::results::{SqliteLogs, SqliteResults};

    struct Sqlite(tempfile::TempDir);

    impl Sqlite {
        fn new() -> Self {
            Sqlite(tempfile::tempdir().expect("a temporary directory"))
        }
    }

    #[async_trait]
    impl Subject<dyn ResultStore> for Sqlite {
        fn durable(&self) -> bool {
            true
        }

        async fn open(&self) -> Arc<dyn ResultStore> {
            Arc::new(SqliteResults::open(self.0.path().join("tasks.db")).await.expect("it opens"))
        }
    }

    #[async_trait]
    impl Subject<dyn LogStore> for Sqlite {
        fn durable(&self) -> bool {
            true
        }

        async fn open(&self) -> Arc<dyn LogStore> {
            Arc::new(SqliteLogs::open(self.0.path().join("tasks.db")).await.expect("it opens"))
        }
    }

    result_store_conformance!(results, Sqlite::new());
    log_store_conformance!(logs, Sqlite::new());
}

#[cfg(feature = "redis")]
mod redis {
    use super::*;
    use crate::store_redis::{namespace, url};
    use light_task_scheduler::results::{RedisLogs, RedisResults};

    /// A namespace of its own on the server of the tests.
    struct Redis(String);

    impl Redis {
        fn new() -> Self {
            Redis(namespace())
        }
    }

    impl Drop for Redis {
        fn drop(&mut self) {
            crate::store_redis::remove_keys(&format!("lts:{}:*", self.0));
        }
    }

    #[async_trait]
    impl Subject<dyn ResultStore> for Redis {
        fn durable(&self) -> bool {
            true
        }

        async fn open(&self) -> Arc<dyn ResultStore> {
            Arc::new(RedisResults::open(&url(), &self.0).await.expect("it opens"))
        }
    }

    #[async_trait]
    impl Subject<dyn LogStore> for Redis {
        fn durable(&self) -> bool {
            true
        }

        async fn open(&self) -> Arc<dyn LogStore> {
            Arc::new(RedisLogs::open(&url(), &self.0).await.expect("it opens"))
        }
    }

    result_store_conformance!(results, Redis::new());
    log_store_conformance!(logs, Redis::new());
}

#[cfg(feature = "mysql")]
mod mysql {
    use super::*;
    use crate::store_mysql::Database;
    use light_task_scheduler::results::{MySqlLogs, MySqlResults};

    struct MariaDb(Database);

    impl MariaDb {
        fn new() -> Self {
            MariaDb(Database::fresh())
        }
    }

    #[async_trait]
    impl Subject<dyn ResultStore> for MariaDb {
        fn durable(&self) -> bool {
            true
        }

        async fn open(&self) -> Arc<dyn ResultStore> {
            Arc::new(MySqlResults::open(&self.0.url()).await.expect("it opens"))
        }
    }

    #[async_trait]
    impl Subject<dyn LogStore> for MariaDb {
        fn durable(&self) -> bool {
            true
        }

        async fn open(&self) -> Arc<dyn LogStore> {
            Arc::new(MySqlLogs::open(&self.0.url()).await.expect("it opens"))
        }
    }

    result_store_conformance!(results, MariaDb::new());
    log_store_conformance!(logs, MariaDb::new());
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use crate::store_postgres::{Schema, direct_url};
    use light_task_scheduler::results::{PostgresLogs, PostgresResults};

    struct Postgres(Schema);

    impl Postgres {
        fn new() -> Self {
            Postgres(Schema::fresh())
        }

        fn url(&self) -> String {
            format!("{}?schema={}", direct_url(), self.0.0)
        }
    }

    #[async_trait]
    impl Subject<dyn ResultStore> for Postgres {
        fn durable(&self) -> bool {
            true
        }

        async fn open(&self) -> Arc<dyn ResultStore> {
            Arc::new(PostgresResults::open(&self.url()).await.expect("it opens"))
        }
    }

    #[async_trait]
    impl Subject<dyn LogStore> for Postgres {
        fn durable(&self) -> bool {
            true
        }

        async fn open(&self) -> Arc<dyn LogStore> {
            Arc::new(PostgresLogs::open(&self.url()).await.expect("it opens"))
        }
    }

    result_store_conformance!(results, Postgres::new());
    log_store_conformance!(logs, Postgres::new());
}

mod memory {
    use super::*;
    use light_task_scheduler::results::{MemoryLogs, MemoryResults};

    #[derive(Default)]
    struct Memory(MemoryResults, MemoryLogs);

    #[async_trait]
    impl Subject<dyn ResultStore> for Memory {
        fn durable(&self) -> bool {
            false
        }

        async fn open(&self) -> Arc<dyn ResultStore> {
            Arc::new(self.0.clone())
        }
    }

    #[async_trait]
    impl Subject<dyn LogStore> for Memory {
        fn durable(&self) -> bool {
            false
        }

        async fn open(&self) -> Arc<dyn LogStore> {
            Arc::new(self.1.clone())
        }
    }

    result_store_conformance!(results, Memory::default());
    log_store_conformance!(logs, Memory::default());
}
