CREATE TABLE IF NOT EXISTS {p}results (
    name  VARBINARY(300) NOT NULL PRIMARY KEY,
    bytes LONGBLOB NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;

-- One row for each append: rows of a log follow each other without a gap.
CREATE TABLE IF NOT EXISTS {p}logs (
    id        VARBINARY(200) NOT NULL,
    execution BIGINT NOT NULL,
    stream    VARBINARY(10) NOT NULL,
    start     BIGINT NOT NULL,
    bytes     LONGBLOB NOT NULL,
    PRIMARY KEY (id, execution, stream, start)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;
