-- 1: an operator wishes that it takes nothing more, and leaves.
ALTER TABLE replicas ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;
