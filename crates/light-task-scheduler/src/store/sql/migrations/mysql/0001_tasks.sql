-- Names and texts are bytes: no collation makes two of them equal, and none of a server's settings changes that.

-- Every pair of queue and kind that ever had a task, as a small number.
CREATE TABLE IF NOT EXISTS {p}lanes (
    id    INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    queue VARBINARY(100) NOT NULL,
    kind  VARBINARY(100) NOT NULL,
    UNIQUE KEY lanes_name (queue, kind)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS {p}queues (
    name     VARBINARY(100) NOT NULL PRIMARY KEY,
    settings BLOB NOT NULL,              -- JSON
    limited  TINYINT NOT NULL,           -- of the settings: whether there is a limit of running tasks
    paused   TINYINT NOT NULL,           -- of the settings
    tat      BIGINT NOT NULL DEFAULT 0   -- the rate limit's theoretical arrival time
) ENGINE=InnoDB;

-- Every replica that ever registered.
CREATE TABLE IF NOT EXISTS {p}replicas (
    id         BINARY(16) NOT NULL PRIMARY KEY,
    name       MEDIUMBLOB NOT NULL,
    ttl        BIGINT NOT NULL,
    beat       BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    dead       TINYINT NOT NULL,
    claim      BIGINT NOT NULL           -- the number of the last claim that took something
) ENGINE=InnoDB;

-- `stage` is the number of the state, or -1: waiting, and not yet seen to be due. Times are microseconds since 1970.
-- There are no partial indexes here: the stored columns at the end are NULL where such an index would have no entry,
-- and an update that leaves them NULL does not touch their index.
CREATE TABLE IF NOT EXISTS {p}tasks (
    seq           BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    run_at        BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    started_at    BIGINT,
    finished_at   BIGINT,
    deadline      BIGINT,
    claim         BIGINT,                -- the number of the claim that took it
    run           BIGINT NOT NULL DEFAULT 0,
    execution     BIGINT NOT NULL DEFAULT 0,
    owner         BINARY(16),
    lane          INT NOT NULL,
    nice          INT NOT NULL,          -- the priority, its bits turned over: high comes first
    generation    INT NOT NULL DEFAULT 0,
    attempt       INT NOT NULL DEFAULT 0,
    interruptions INT NOT NULL DEFAULT 0,
    lost_in_a_row INT NOT NULL DEFAULT 0,
    stage         TINYINT NOT NULL,
    flags         TINYINT NOT NULL DEFAULT 0,  -- 1: cancel requested, 2: stop unconfirmed, 4: has a report
    id            VARBINARY(200) NOT NULL,
    options       LONGBLOB,              -- JSON
    labels        BLOB,                  -- of each label its name, and name and value, as JSON, between line feeds
    details       LONGBLOB,              -- JSON, without the bytes of output and result
    payload       LONGBLOB NOT NULL,
    output        LONGBLOB,
    result        LONGBLOB,
    -- Ready tasks are in the order of claims; scheduled ones, whose priority does not matter yet, in that of time.
    place         INT AS (CASE WHEN stage = -1 THEN 0 ELSE nice END) STORED,
    -- Nobody's, sixteen zeros: an export that is tried again and has no owner yet.
    holder        BINARY(16) AS (CASE WHEN stage IN (2, 3)
        THEN COALESCE(owner, x'00000000000000000000000000000000') END) STORED,
    expires       BIGINT AS (CASE WHEN stage < 2 THEN deadline END) STORED,
    rare          TINYINT AS (CASE WHEN stage IN (0, 5, 6) THEN stage END) STORED,
    UNIQUE KEY tasks_id (id),
    KEY tasks_ready (lane, stage, place, run_at),
    KEY tasks_holder (holder),
    KEY tasks_expires (expires),
    KEY tasks_rare (rare),
    KEY tasks_finished (finished_at)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;

-- What an execution has said of itself, until its task leaves `running`.
CREATE TABLE IF NOT EXISTS {p}reports (
    task      BIGINT NOT NULL PRIMARY KEY,
    execution BIGINT NOT NULL,
    ended     TINYINT NOT NULL,
    handed    BIGINT,                    -- the run to whose owner it was given
    said      LONGBLOB NOT NULL,         -- JSON, without the bytes of the output
    output    LONGBLOB
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;

-- Ids of removed tasks.
CREATE TABLE IF NOT EXISTS {p}tombstones (
    id          VARBINARY(200) NOT NULL PRIMARY KEY,
    fingerprint BINARY(16) NOT NULL,
    removed_at  BIGINT NOT NULL,
    KEY tombstones_removed_at (removed_at)
) ENGINE=InnoDB;

-- Keys of stored results that nobody refers to any more. By their SHA-256, because a key may be longer than an
-- index can hold.
CREATE TABLE IF NOT EXISTS {p}garbage (
    hash BINARY(32) NOT NULL PRIMARY KEY,
    name LONGBLOB NOT NULL
) ENGINE=InnoDB;

-- One row: the counters behind the hints, written after a commit and not with it, and how often this row was
-- written, by heartbeats too.
CREATE TABLE IF NOT EXISTS {p}hints (
    one    TINYINT NOT NULL PRIMARY KEY,
    work   BIGINT NOT NULL,
    wishes BIGINT NOT NULL,
    ends   BIGINT NOT NULL,
    writes BIGINT NOT NULL
) ENGINE=InnoDB;
INSERT IGNORE INTO {p}hints VALUES (1, 0, 0, 0, 0);
