-- Rows as version 1 wrote them, one in every state.
PRAGMA application_id = 1280594737;
PRAGMA user_version = 1;
UPDATE meta SET now = 1700000000000000, op_seq = 7, seq = 8, salt = 5;
INSERT INTO lanes VALUES (1, 'default', 'k');
INSERT INTO replicas VALUES (1, '018bcfe5-6800-7000-8000-000000000001', 'host', 15000000, 3, 1700000015000000, 0, 2, NULL);
INSERT INTO tasks (id, lane, stage, rank, run_at, created_at, payload) VALUES
    ('held', 1, 0, 0, 1700000000000000, 1700000000000000, x'31'),
    (NULL, 1, 1, -5, 1700000000000000, 1700000000000000, x'31');
INSERT INTO tasks (id, lane, stage, rank, run_at, created_at, owner, claim, run, execution, attempt, started_at, finished_at,
    options, details, output, result, payload) VALUES
    ('running', 1, 2, 0, 1700000000000000, 1700000000000000, 1, 1, 1, 1, 1, 1700000000000000, NULL,
     NULL, '{"handle":"h"}', NULL, NULL, x'31'),
    ('exporting', 1, 3, 0, 1700000000000000, 1700000000000000, 1, 1, 1, 1, 1, 1700000000000000, NULL,
     NULL, NULL, x'6f7574', NULL, x'31'),
    ('succeeded', 1, 4, 0, 1700000000000000, 1700000000000000, 1, 1, 1, 1, 1, 1700000000000000, 1700000001000000,
     NULL, '{"result":{"stored":{"key":"k/1","len":3,"hash":"00"}}}', NULL, NULL, x'31'),
    ('failed', 1, 5, 0, 1700000000000000, 1700000000000000, 1, 1, 1, 1, 1, 1700000000000000, 1700000001000000,
     NULL, '{"failure":{"kind":"error","message":"no"}}', NULL, NULL, x'31'),
    ('cancelled', 1, 6, 0, 1700000000000000, 1700000000000000, NULL, NULL, 0, 0, 0, NULL, 1700000001000000,
     NULL, '{"failure":{"kind":"cancelled","message":"cancelled before it ran"}}', NULL, NULL, x'31'),
    ('retrying', 1, -1, 0, 1700000060000000, 1700000000000000, 1, 1, 1, 1, 1, 1700000000000000, NULL,
     '{"timeout":{"secs":30,"nanos":0},"deadline":null,"retry":null,"labels":{"team":"red"}}',
     '{"failure":{"kind":"error","message":"no"},"attempts":[{"attempt":1,"execution":1,"replica":"018bcfe5-6800-7000-8000-000000000001","started_at":"2023-11-14T22:13:20Z","ended_at":"2023-11-14T22:13:21Z","failure":{"kind":"error","message":"no"}}]}',
     NULL, NULL, x'31');
INSERT INTO tallies SELECT stage, lane, count(*) FROM tasks GROUP BY stage, lane;
