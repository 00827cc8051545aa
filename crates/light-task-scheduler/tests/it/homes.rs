//! Rescue on the same host, on stores of several hosts: a process that has ended is proven dead, and no other is.

use std::process::{Child, Command};
use std::time::Duration;

use light_task_scheduler::store::{
    ClaimRequest, Heartbeat, NewReplica, ReplicaStatus, RescueRequest, Rescued, Suspect,
};
use light_task_scheduler::{ErrorKind, Name, NewTask, ReplicaId, Store, SystemClock};
use serde_json::Value;

/// What the row of a replica says of its process; this one moves it to another process.
pub(crate) trait Homes {
    async fn read(&self, replica: ReplicaId) -> String;
    async fn write(&self, replica: ReplicaId, home: &str);
}

/// So long that nobody's lease ends.
const TTL: Duration = Duration::from_secs(600);

async fn register(store: &dyn Store) -> ReplicaId {
    let id = ReplicaId::generate(&SystemClock);
    store.register(NewReplica { id, name: "r".to_owned(), ttl: TTL }).await.unwrap();
    id
}

async fn status(store: &dyn Store, id: ReplicaId) -> ReplicaStatus {
    store.replicas().await.unwrap().into_iter().find(|status| status.id == id).unwrap()
}

async fn rescue(store: &dyn Store, replica: ReplicaId, suspects: Vec<Suspect>) -> Rescued {
    let kinds = vec![Name::new("k").unwrap()];
    store.rescue(RescueRequest { replica, suspects, kinds, limit: 10 }).await.unwrap()
}

/// The same place, but another process.
fn moved(home: &str, child: &Child) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let started = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse::<u64>().unwrap();
    let mut home: Value = serde_json::from_str(home).unwrap();
    (home["pid"], home["started"]) = (child.id().into(), started.into());
    home.to_string()
}

fn with(home: &str, place: &str) -> String {
    let mut home: Value = serde_json::from_str(home).unwrap();
    home["place"][place] = "another".into();
    home.to_string()
}

/// Two handles of one store, which is empty.
pub(crate) async fn who_has_ended_on_this_host_is_rescued_at_once(stores: [&dyn Store; 2], homes: impl Homes) {
    let [store, other] = stores;
    let victim = register(store).await;
    store.insert(vec![NewTask::new("k", &1).unwrap()]).await.unwrap();
    let kinds = vec![Name::new("k").unwrap()];
    let request = ClaimRequest { replica: victim, number: 1, kinds, queues: vec![], limit: 1, among: None };
    assert_eq!(store.claim(request).await.unwrap().tasks.len(), 1);
    let rescuer = register(other).await;
    let lives = async |home: &str, why: &str| {
        homes.write(victim, home).await;
        let seen = status(other, victim).await;
        assert!(!seen.proven_dead && !seen.expired, "{why}");
        let rescued = rescue(other, rescuer, vec![Suspect { id: victim, beat: seen.beat }]).await;
        assert_eq!((rescued.dead, rescued.tasks), (vec![], vec![]), "{why}");
    };

    let home = homes.read(victim).await;
    lives(&home, "it is this process").await;
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let home = moved(&home, &child);
    lives(&home, "it lives").await;
    child.kill().unwrap();
    child.wait().unwrap();
    for place in ["host", "boot", "pids", "times"] {
        lives(&with(&home, place), place).await;
    }
    lives("{\"of\":\"another release\"}", "what cannot be read proves nothing").await;

    homes.write(victim, &home).await;
    let seen = status(other, victim).await;
    assert!(seen.proven_dead && !seen.expired && !seen.dead);
    let rescued = rescue(other, rescuer, vec![Suspect { id: victim, beat: seen.beat }]).await;
    assert_eq!((rescued.dead, rescued.tasks.len()), (vec![victim], 1));
    assert_eq!(rescued.claimed_here, [rescued.tasks[0].id.clone()], "what it started is here or nowhere");
    let renewed = store.heartbeat(Heartbeat { replica: victim, holdings: None }).await;
    assert_eq!(renewed.unwrap_err().kind(), ErrorKind::NotRegistered);

    // The next one cannot know whether the claimer was on this host, only that the adopter was.
    homes.write(rescuer, &home).await;
    let last = register(store).await;
    let seen = status(store, rescuer).await;
    let rescued = rescue(store, last, vec![Suspect { id: rescuer, beat: seen.beat }]).await;
    assert_eq!((rescued.dead, rescued.tasks.len(), rescued.claimed_here), (vec![rescuer], 1, vec![]));
}
