BEGIN TRANSACTION;
CREATE TABLE history (
        run_id TEXT NOT NULL,
        generation INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        token TEXT NOT NULL,
        events TEXT NOT NULL,
        PRIMARY KEY (run_id, generation, sequence)) WITHOUT ROWID;
INSERT INTO "history" VALUES('child',0,0,'','[{"kind":"RunStarted","at":"2026-03-01T12:00:00.123457+00:00","name":"order","version":1,"input":"{\"n\":1}","engine":1,"python":"3.11"}]');
INSERT INTO "history" VALUES('child',0,1,'3d4aeba0b1bcf5da4377d3ef4b1de384','[{"kind":"SideEffectRecorded","at":"2026-03-01T12:00:00.123458+00:00","id":1,"result":"null"}]');
CREATE TABLE inbox (
        run_id TEXT NOT NULL,
        message_id TEXT NOT NULL,
        received_at INTEGER NOT NULL,
        kind TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (run_id, message_id)) WITHOUT ROWID;
INSERT INTO "inbox" VALUES('child','m-1',1772366400123457,'signal','{"name":"go","payload":"m-1"}');
CREATE TABLE listeners (port INTEGER NOT NULL PRIMARY KEY, pid INTEGER NOT NULL);
CREATE TABLE runs (
        run_id TEXT NOT NULL PRIMARY KEY,
        workflow_id TEXT NOT NULL,
        name TEXT NOT NULL,
        version INTEGER NOT NULL,
        status TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        started_at INTEGER,
        closed_at INTEGER,
        generation INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        wake_at INTEGER,
        due_at INTEGER,
        lease_owner TEXT,
        lease_until INTEGER,
        lease_token TEXT,
        released_by TEXT,
        parent_run_id TEXT,
        retry_count INTEGER NOT NULL,
        request_digest TEXT,
        open_approvals TEXT,
        attributes TEXT NOT NULL,
        notes TEXT NOT NULL,
        input TEXT NOT NULL,
        output TEXT);
INSERT INTO "runs" VALUES('child','of-child','order',1,'parked',1772366400123457,1772366400123457,NULL,0,1,NULL,NULL,NULL,NULL,NULL,'3d4aeba0b1bcf5da4377d3ef4b1de384','parent',0,NULL,NULL,'{}','{"error":null,"custom_status":"c","problem":"p"}','{"n":1}',NULL);
CREATE INDEX runs_due ON runs (due_at, run_id) WHERE due_at IS NOT NULL;
CREATE INDEX runs_held ON runs (lease_owner, due_at) WHERE lease_owner IS NOT NULL;
CREATE INDEX runs_asking ON runs (created_at, run_id) WHERE open_approvals IS NOT NULL;
CREATE INDEX runs_newest ON runs (created_at, run_id);
CREATE INDEX runs_by_status ON runs (status, created_at, run_id);
CREATE INDEX runs_by_name ON runs (name, created_at, run_id);
CREATE INDEX runs_by_workflow_id ON runs (workflow_id, created_at, run_id);
COMMIT;
PRAGMA user_version = 1;
