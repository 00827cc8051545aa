-- Where a replica lives, as JSON: who shares its host can prove its death. Null where that cannot be told.
ALTER TABLE {p}replicas ADD COLUMN home BLOB;
