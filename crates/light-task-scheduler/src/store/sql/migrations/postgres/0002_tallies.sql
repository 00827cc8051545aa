-- How many tasks each lane has in each stage: the sums. Each transaction adds rows of its own, so that none waits for
-- another; the sweeper puts them together.
CREATE TABLE {s}.tallies (
    lane  integer NOT NULL,
    stage smallint NOT NULL,
    n     bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- Nobody changes a task while they are counted for the first time.
LOCK TABLE {s}.tasks IN SHARE MODE;
INSERT INTO {s}.tallies SELECT lane, stage, count(*) FROM {s}.tasks GROUP BY lane, stage;
