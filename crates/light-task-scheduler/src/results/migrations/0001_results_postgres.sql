CREATE TABLE {s}.results (
    key   text COLLATE "C" PRIMARY KEY,
    bytes bytea NOT NULL
);

-- One row for each append: rows of a log follow each other without a gap.
CREATE TABLE {s}.logs (
    id        text COLLATE "C" NOT NULL,
    execution bigint NOT NULL,
    stream    text COLLATE "C" NOT NULL,
    start     bigint NOT NULL,
    bytes     bytea NOT NULL,
    PRIMARY KEY (id, execution, stream, start)
);
