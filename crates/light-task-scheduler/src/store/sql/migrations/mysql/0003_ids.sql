-- The salt in the ids that are made here: 22 random bits, one row.
CREATE TABLE IF NOT EXISTS {p}salt (
    one  TINYINT NOT NULL PRIMARY KEY,
    salt INT NOT NULL
) ENGINE=InnoDB;
INSERT IGNORE INTO {p}salt VALUES (1, FLOOR(RAND() * 4194304));
-- An id that nobody gave says where its row is, and is null. What had one before keeps it.
ALTER TABLE {p}tasks MODIFY id VARBINARY(200);
