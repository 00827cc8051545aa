//! Redis over TLS: servers of their own that take nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use light_task_scheduler::results::RedisResults;
use light_task_scheduler::store::redis::RedisStore;
use light_task_scheduler::store::{Changes, Store};
use light_task_scheduler::{ErrorKind, NewTask};
use tempfile::TempDir;

/// A server of this test alone, made and stopped by the script.
struct Server {
    directory: TempDir,
    url: String,
}

impl Server {
    fn script() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/servers/redis")
    }

    /// `mutual`: a client needs a certificate as well.
    async fn start(mutual: bool) -> Self {
        tokio::task::spawn_blocking(move || {
            let directory = tempfile::tempdir().unwrap();
            let mut script = Command::new(Server::script());
            script.env("FAST", "1").env("TLS", if mutual { "mutual" } else { "1" });
            let started = script.arg("start").arg(directory.path()).output().unwrap();
            assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
            let said = String::from_utf8(started.stdout).unwrap();
            let url = said.lines().find_map(|line| line.strip_prefix("export LTS_TEST_REDIS_URL="));
            Server { directory, url: url.expect("the script tells the URL").to_owned() }
        })
        .await
        .unwrap()
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = Command::new(Server::script()).arg("stop").arg(self.directory.path()).status();
        assert!(stopped.is_ok_and(|status| status.success()) || std::thread::panicking(), "the server stops");
    }
}

/// A store is used through all of its connections: calls, and the hints of another handle's.
async fn is_used(url: &str) {
    let (store, other) = (RedisStore::open(url).await.unwrap(), RedisStore::open(url).await.unwrap());
    let before = other.changed(Changes { work: u64::MAX, ..Changes::default() }).await;
    store.insert(vec![NewTask::new("work", &1).unwrap()]).await.unwrap().remove(0).unwrap();
    assert_ne!(other.changed(before).await, before);
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
    RedisResults::open(url, "default").await.unwrap();
}

#[tokio::test]
async fn tls_is_used_and_verified() {
    let server = Server::start(false).await;
    let (ca, other) = (server.file("ca.pem"), server.file("other.pem"));
    is_used(&format!("{}?ssl-ca={ca}", server.url)).await;
    is_used(&format!("{}?ssl-ca={ca}", server.url.replace("rediss", "valkeys"))).await;
    // The authority is not one that the system trusts; another's; a name that is not in the certificate; no TLS.
    let by_name = server.url.replace("127.0.0.1", "localhost");
    let plain = server.url.replace("rediss", "redis");
    for (url, kind, says) in [
        (server.url.clone(), ErrorKind::Unavailable, "check the server's certificate"),
        (format!("{}?ssl-ca={other}", server.url), ErrorKind::Unavailable, "check the server's certificate"),
        (format!("{by_name}?ssl-ca={ca}"), ErrorKind::Unavailable, "check the server's certificate"),
        (format!("{}#insecure", server.url), ErrorKind::Invalid, "always verified"),
        (format!("{}/0#insecure", server.url), ErrorKind::Invalid, "always verified"),
        (format!("{}?ssl-ca={}", server.url, server.file("server.key")), ErrorKind::Invalid, "must be in PEM"),
        (format!("{}?ssl-ca={ca}&ssl-cert={ca}", server.url), ErrorKind::Invalid, "belong together"),
        (plain, ErrorKind::Unavailable, "redis at 127.0.0.1"),
    ] {
        let refused = RedisStore::open(&url).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{url}: {refused}");
        assert!(refused.to_string().contains(says), "{url}: {refused}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_it() {
    let server = Server::start(true).await;
    let file = |name: &str| server.file(name);
    let url = |cert: &str, key: &str| {
        format!("{}?ssl-ca={}&ssl-cert={}&ssl-key={}", server.url, file("ca.pem"), file(cert), file(key))
    };
    is_used(&url("server.pem", "server.key")).await;
    for url in [url("other.pem", "other.key"), format!("{}?ssl-ca={}", server.url, file("ca.pem"))] {
        let refused = RedisStore::open(&url).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{url}: {refused}");
        assert!(!format!("{refused:?}").contains("PRIVATE"), "{refused:?}");
    }
}
