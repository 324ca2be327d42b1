-- Moments are integer milliseconds since 1970, UTC. JSON columns hold values of src/model.

CREATE TABLE workspaces (
    key         TEXT PRIMARY KEY,
    baseline_at INTEGER NOT NULL,
    horizon     INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    workspace TEXT NOT NULL,
    run       TEXT NOT NULL,
    -- the one truth: subscribe counts it up without rewriting the state
    version   INTEGER NOT NULL,
    state     TEXT NOT NULL,
    PRIMARY KEY (workspace, run)
) STRICT;

CREATE TABLE subscriptions (
    id          TEXT PRIMARY KEY,
    workspace   TEXT NOT NULL,
    run         TEXT,
    destination TEXT NOT NULL,
    template    TEXT,
    json        TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX subscriptions_once
    ON subscriptions (workspace, ifnull(run, ''), destination, ifnull(template, ''));

CREATE TABLE changes (
    workspace TEXT NOT NULL,
    run       TEXT NOT NULL,
    sequence  INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    json      TEXT NOT NULL,
    PRIMARY KEY (workspace, run, sequence)
) STRICT;

CREATE TABLE deliveries (
    -- in order of recording
    number       INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    workspace    TEXT NOT NULL,
    run          TEXT NOT NULL,
    sequence     INTEGER NOT NULL,
    destination  TEXT NOT NULL,
    template     TEXT,
    subscription TEXT NOT NULL,
    state        TEXT NOT NULL
        CHECK (state IN ('pending', 'in_flight', 'delivered', 'unknown', 'dead', 'superseded')),
    -- 1: the oldest open row of its destination and run, the only one that may be claimed
    head         INTEGER NOT NULL DEFAULT 0,
    attempt      INTEGER NOT NULL DEFAULT 0,
    next_at      INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    settled_at   INTEGER,
    reason       TEXT,
    message_id   TEXT,
    FOREIGN KEY (workspace, run, sequence) REFERENCES changes (workspace, run, sequence)
) STRICT;

-- the dedup key; run first, so that it also answers "deliveries of this run"
CREATE UNIQUE INDEX deliveries_once
    ON deliveries (run, workspace, sequence, destination, ifnull(template, ''));

-- counts, and lists by state
CREATE INDEX deliveries_state ON deliveries (state);

-- only what is still owed, so that neither index grows with history
CREATE INDEX deliveries_open ON deliveries (destination, workspace, run, sequence)
    WHERE state IN ('pending', 'in_flight', 'unknown');

CREATE INDEX deliveries_due ON deliveries (destination, next_at)
    WHERE head = 1 AND state IN ('pending', 'unknown');

CREATE TABLE attempts (
    delivery   INTEGER NOT NULL REFERENCES deliveries (number) ON DELETE CASCADE,
    attempt    INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    outcome    TEXT,
    reason     TEXT,
    PRIMARY KEY (delivery, attempt)
) STRICT, WITHOUT ROWID;
