-- The salt in the ids that are made here: 22 random bits, one row.
CREATE TABLE {s}.salt (
    salt integer NOT NULL
);
INSERT INTO {s}.salt SELECT floor(random() * 4194304)::integer;
-- An id that nobody gave says where its row is, and is null. What had one before keeps it.
ALTER TABLE {s}.tasks ALTER COLUMN id DROP NOT NULL;
DROP INDEX {s}.tasks_id;
CREATE UNIQUE INDEX tasks_id ON {s}.tasks (id) WHERE id IS NOT NULL;
