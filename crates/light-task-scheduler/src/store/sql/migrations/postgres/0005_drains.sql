-- An operator wishes that it takes nothing more, and leaves.
ALTER TABLE {s}.replicas ADD COLUMN draining boolean NOT NULL DEFAULT false;
