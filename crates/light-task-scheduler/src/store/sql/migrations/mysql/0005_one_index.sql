-- A row has one entry in one index, whatever its stage is: ready tasks in the order of claims, scheduled ones in that of
-- time, those that somebody has by the last seven bytes of its id, ended ones by their end. What only few tasks have is in
-- tables of its own, as an index has an entry for every row, also where its columns are null.
-- A row that becomes longer moves on its page, and the page is written anew: where there is no time, owner or claim
-- there are zeros, which nulls become in this mode. A result that is `null` is the flag 8, and its column empty.
-- The priority has a new name, so that an earlier release takes in and claims nothing in these tables.
SET SESSION sql_mode = ''; ALTER TABLE {p}tasks
    DROP KEY tasks_id, DROP KEY tasks_ready, DROP KEY tasks_holder, DROP KEY tasks_expires, DROP KEY tasks_rare,
    DROP KEY tasks_finished, DROP COLUMN place, DROP COLUMN holder, DROP COLUMN expires, DROP COLUMN rare,
    CHANGE nice precedence INT NOT NULL,
    MODIFY started_at BIGINT NOT NULL DEFAULT 0, MODIFY finished_at BIGINT NOT NULL DEFAULT 0,
    MODIFY claim BIGINT NOT NULL DEFAULT 0,
    MODIFY owner BINARY(16) NOT NULL DEFAULT x'00000000000000000000000000000000',
    ADD COLUMN place BIGINT AS (CASE WHEN stage = 1 THEN precedence
        WHEN stage IN (2, 3) THEN CAST(CONV(HEX(RIGHT(owner, 7)), 16, 10) AS SIGNED)
        WHEN stage > 3 THEN finished_at ELSE 0 END) STORED,
    ADD KEY tasks_ready (lane, stage, place, run_at); SET SESSION sql_mode = DEFAULT;

-- The ids that were given, and the numbers of their rows.
CREATE TABLE IF NOT EXISTS {p}ids (
    id   VARBINARY(200) NOT NULL PRIMARY KEY,
    task BIGINT NOT NULL
) ENGINE=InnoDB;
-- The deadlines of tasks that have not run.
CREATE TABLE IF NOT EXISTS {p}deadlines (
    task     BIGINT NOT NULL PRIMARY KEY,
    deadline BIGINT NOT NULL,
    KEY deadlines_at (deadline)
) ENGINE=InnoDB;
-- The tasks that are held, have failed or were cancelled.
CREATE TABLE IF NOT EXISTS {p}rare (
    stage TINYINT NOT NULL,
    task  BIGINT NOT NULL,
    PRIMARY KEY (stage, task)
) ENGINE=InnoDB;
INSERT IGNORE INTO {p}ids SELECT id, seq FROM {p}tasks WHERE id IS NOT NULL;
INSERT IGNORE INTO {p}deadlines SELECT seq, deadline FROM {p}tasks WHERE stage < 2 AND deadline IS NOT NULL;
INSERT IGNORE INTO {p}rare SELECT stage, seq FROM {p}tasks WHERE stage IN (0, 5, 6);
