-- One row that changes with every commit: the store's time and the counters behind the hints.
CREATE TABLE meta (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    now    INTEGER NOT NULL,  -- the latest time handed out, microseconds since 1970
    epoch  INTEGER NOT NULL,  -- how often acknowledged writes were lost
    op_seq INTEGER NOT NULL,  -- how many commits
    work   INTEGER NOT NULL,  -- the counters of `Changes`
    wishes INTEGER NOT NULL,
    ends   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,  -- the highest `tasks.seq` ever used
    salt   INTEGER NOT NULL   -- 22 random bits in the ids that are made here
) STRICT;
INSERT INTO meta VALUES (1, 0, 0, 0, 0, 0, 0, 0, random() & 0x3fffff);

-- Every pair of queue and kind that ever had a task, as a small number.
CREATE TABLE lanes (
    id    INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    kind  TEXT NOT NULL,
    UNIQUE (queue, kind)
) STRICT;

CREATE TABLE queues (
    name     TEXT PRIMARY KEY,
    settings TEXT NOT NULL,              -- JSON
    tat      INTEGER NOT NULL DEFAULT 0  -- the rate limit's theoretical arrival time
) STRICT, WITHOUT ROWID;

-- How many tasks are in each stage of each lane, kept by the commit that moves them. No row means 0.
CREATE TABLE tallies (
    stage INTEGER NOT NULL,
    lane  INTEGER NOT NULL,
    n     INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (stage, lane)
) STRICT, WITHOUT ROWID;

-- Every replica that ever registered; `key` stands for it in `tasks.owner`.
CREATE TABLE replicas (
    key        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    ttl        INTEGER NOT NULL,
    beat       INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    dead       INTEGER NOT NULL,
    claim      INTEGER NOT NULL,  -- the number of the last claim that took something
    lock       TEXT               -- the identity of its lock file, if it has one
) STRICT;

-- `stage` is the number of the state, or -1: waiting, and not yet seen to be due.
-- (The conditions of the indexes are comparisons: a list of three makes every write build a temporary table.)
-- An integer in `payload`, `output` or `result` is a length: the bytes are in `blobs`.
CREATE TABLE tasks (
    seq           INTEGER PRIMARY KEY,
    id            TEXT,              -- if its submitter gave it one; otherwise it is made from seq, created_at and the salt
    lane          INTEGER NOT NULL,
    stage         INTEGER NOT NULL,
    rank          INTEGER NOT NULL,  -- the priority, negated
    run_at        INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    owner         INTEGER,
    claim         INTEGER,           -- the number of the claim that took it
    run           INTEGER NOT NULL DEFAULT 0,
    execution     INTEGER NOT NULL DEFAULT 0,
    generation    INTEGER NOT NULL DEFAULT 0,
    attempt       INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    lost_in_a_row INTEGER NOT NULL DEFAULT 0,
    flags         INTEGER NOT NULL DEFAULT 0,  -- 1: cancel requested, 2: stop unconfirmed, 4: has a report
    started_at    INTEGER,
    finished_at   INTEGER,
    deadline      INTEGER,
    options       TEXT,              -- JSON
    details       TEXT,              -- JSON, without the bytes of output and result
    output        ANY,
    result        ANY,
    payload       ANY NOT NULL
) STRICT;
CREATE UNIQUE INDEX tasks_id ON tasks (id) WHERE id IS NOT NULL;
CREATE INDEX tasks_ready ON tasks (lane, rank, run_at) WHERE stage = 1;
CREATE INDEX tasks_scheduled ON tasks (lane, run_at) WHERE stage = -1;
CREATE INDEX tasks_active ON tasks (owner) WHERE stage IN (2, 3);
CREATE INDEX tasks_deadline ON tasks (deadline) WHERE deadline IS NOT NULL AND stage < 2;
CREATE INDEX tasks_rare ON tasks (stage) WHERE stage = 0 OR stage >= 5;
CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;

-- Bytes too large for the row, which is written again at every move. The key is 4 × seq + part.
CREATE TABLE blobs (
    key   INTEGER PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;

-- What an execution has said of itself, until its task leaves `running`.
CREATE TABLE reports (
    task      INTEGER PRIMARY KEY,
    execution INTEGER NOT NULL,
    ended     INTEGER NOT NULL,
    handed    INTEGER,        -- the run to whose owner it was given; before the large ones, which every heartbeat skips
    said      TEXT NOT NULL,  -- JSON, without the bytes of the output
    output    BLOB
) STRICT;

-- Ids of removed tasks, oldest first.
CREATE TABLE tombstones (
    n           INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    fingerprint BLOB NOT NULL,
    removed_at  INTEGER NOT NULL
) STRICT;

-- Keys of stored results that nobody refers to any more.
CREATE TABLE garbage (
    key TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
