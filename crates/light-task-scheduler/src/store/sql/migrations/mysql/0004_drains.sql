-- 1: an operator wishes that it takes nothing more, and leaves.
ALTER TABLE {p}replicas ADD COLUMN draining TINYINT NOT NULL DEFAULT 0;
