-- Results and logs of tasks. The tables may share their file with others, so they carry their own version.
CREATE TABLE IF NOT EXISTS lts_results_schema (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS lts_results (
    key   TEXT PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;

-- One row per append; rows of one log follow each other without a gap. `execution` holds the bits of an
-- unsigned number and is only compared for equality.
CREATE TABLE IF NOT EXISTS lts_logs (
    id        TEXT    NOT NULL,
    execution INTEGER NOT NULL,
    stream    TEXT    NOT NULL,
    start     INTEGER NOT NULL,
    bytes     BLOB    NOT NULL,
    PRIMARY KEY (id, execution, stream, start)
) STRICT;
