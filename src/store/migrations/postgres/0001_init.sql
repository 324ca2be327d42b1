-- The tables of migrations/sqlite, as they are after its 0002. Moments are integer milliseconds since 1970, UTC. JSON
-- stays text: nothing in here looks into it. Names compare byte by byte, whatever the locale of the database.

CREATE TABLE workspaces (
    key         TEXT COLLATE "C" PRIMARY KEY,
    baseline_at BIGINT NOT NULL,
    horizon     BIGINT,
    seen_at     BIGINT
);

CREATE TABLE runs (
    workspace TEXT COLLATE "C" NOT NULL,
    run       TEXT COLLATE "C" NOT NULL,
    version   BIGINT NOT NULL,
    state     TEXT NOT NULL,
    PRIMARY KEY (workspace, run)
);

CREATE TABLE subscriptions (
    id          TEXT COLLATE "C" PRIMARY KEY,
    workspace   TEXT COLLATE "C" NOT NULL,
    run         TEXT COLLATE "C",
    destination TEXT COLLATE "C" NOT NULL,
    template    TEXT COLLATE "C",
    json        TEXT NOT NULL,
    created_at  BIGINT NOT NULL
);

CREATE UNIQUE INDEX subscriptions_once
    ON subscriptions (workspace, coalesce(run, ''), destination, coalesce(template, ''));

CREATE TABLE changes (
    -- in order of recording; SQLite has it unasked
    rowid     BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    workspace TEXT COLLATE "C" NOT NULL,
    run       TEXT COLLATE "C" NOT NULL,
    sequence  BIGINT NOT NULL,
    at        BIGINT NOT NULL,
    json      TEXT NOT NULL,
    PRIMARY KEY (workspace, run, sequence)
);

CREATE TABLE deliveries (
    number       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           TEXT COLLATE "C" NOT NULL UNIQUE,
    workspace    TEXT COLLATE "C" NOT NULL,
    run          TEXT COLLATE "C" NOT NULL,
    sequence     BIGINT NOT NULL,
    destination  TEXT COLLATE "C" NOT NULL,
    template     TEXT COLLATE "C",
    subscription TEXT NOT NULL,
    state        TEXT COLLATE "C" NOT NULL
        CHECK (state IN ('pending', 'in_flight', 'delivered', 'unknown', 'dead', 'superseded')),
    head         BIGINT NOT NULL DEFAULT 0,
    lane         BIGINT NOT NULL DEFAULT 2,
    urgent       BIGINT NOT NULL DEFAULT 0,
    missed       BIGINT NOT NULL DEFAULT 0,
    attempt      BIGINT NOT NULL DEFAULT 0,
    tries        BIGINT NOT NULL DEFAULT 0,
    -- the replica that claimed it last
    owner        BIGINT NOT NULL DEFAULT 0,
    next_at      BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    unknown_at   BIGINT,
    settled_at   BIGINT,
    reason       TEXT,
    message_id   TEXT,
    carrier      BIGINT,
    folding      TEXT CHECK (folding IN ('rate', 'late')),
    wire_id      TEXT,
    alone        BIGINT NOT NULL DEFAULT 0,
    FOREIGN KEY (workspace, run, sequence) REFERENCES changes (workspace, run, sequence)
);

CREATE UNIQUE INDEX deliveries_once
    ON deliveries (run, workspace, sequence, destination, coalesce(template, ''));

CREATE INDEX deliveries_state ON deliveries (state, number);

CREATE INDEX deliveries_open ON deliveries (destination, workspace, run, sequence)
    WHERE state IN ('pending', 'in_flight', 'unknown');

CREATE INDEX deliveries_due ON deliveries (destination, lane, next_at, number)
    WHERE head = 1 AND state IN ('pending', 'unknown') AND carrier IS NULL;

CREATE INDEX deliveries_in_flight ON deliveries (destination) WHERE state = 'in_flight';

CREATE INDEX deliveries_foldable ON deliveries (destination, head, coalesce(template, ''), lane, number)
    WHERE state = 'pending' AND unknown_at IS NULL AND alone = 0 AND carrier IS NULL AND workspace <> '';

CREATE INDEX deliveries_bound ON deliveries (carrier, number) WHERE carrier IS NOT NULL AND state = 'pending';

CREATE INDEX deliveries_told ON deliveries (carrier) WHERE carrier IS NOT NULL AND state = 'superseded';

CREATE TABLE attempts (
    delivery   BIGINT NOT NULL REFERENCES deliveries (number) ON DELETE CASCADE,
    attempt    BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at   BIGINT,
    outcome    TEXT,
    reason     TEXT,
    PRIMARY KEY (delivery, attempt)
);

CREATE TABLE destinations (
    destination TEXT COLLATE "C" PRIMARY KEY,
    place       TEXT NOT NULL
);

CREATE TABLE ledger (
    id         BIGINT PRIMARY KEY CHECK (id = 1),
    owed       BIGINT NOT NULL,
    merged     BIGINT NOT NULL,
    delivered  BIGINT NOT NULL,
    folded     BIGINT NOT NULL,
    suppressed BIGINT NOT NULL,
    dead       BIGINT NOT NULL
);

INSERT INTO ledger VALUES (1, 0, 0, 0, 0, 0, 0);

-- Who serves, and when each was last heard of, by the clock of the database.
CREATE TABLE replicas (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- it was heard of without a gap since then
    since       TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    seen_at     TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    -- after how long of silence others may send again what it was sending
    takeover_ms BIGINT NOT NULL
);

-- What one replica at a time tends: `workspace:KEY` polls it, `surface:NAME` is connected.
CREATE TABLE leases (
    name    TEXT COLLATE "C" PRIMARY KEY,
    replica BIGINT NOT NULL,
    until   TIMESTAMPTZ NOT NULL
);

-- What all replicas keep together, as JSON: the call budget of each region.
CREATE TABLE shared (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);

-- What the replicas keep in memory and who moved it, for the others. Its numbers are in order of commit, because
-- transactions that write don't overlap. Rows are kept for five minutes, and the last of the older ones.
CREATE TABLE moves (
    number       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    -- 0: a command beside the service
    replica      BIGINT NOT NULL,
    workspace    TEXT COLLATE "C",
    run          TEXT COLLATE "C",
    subscription TEXT COLLATE "C"
);

CREATE INDEX moves_at ON moves (at);

INSERT INTO moves (replica) VALUES (0);

CREATE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    mine BIGINT := coalesce(nullif(current_setting('callboard.replica', true), ''), '0');
    it   RECORD;
BEGIN
    IF TG_OP = 'DELETE' THEN it := OLD; ELSE it := NEW; END IF;
    CASE TG_TABLE_NAME
        WHEN 'subscriptions' THEN INSERT INTO moves (replica, subscription) VALUES (mine, it.id);
        WHEN 'runs' THEN INSERT INTO moves (replica, workspace, run) VALUES (mine, it.workspace, it.run);
        WHEN 'workspaces' THEN INSERT INTO moves (replica, workspace) VALUES (mine, it.key);
    END CASE;
    RETURN NULL;
END $$;

CREATE TRIGGER subscriptions_moved AFTER INSERT OR UPDATE OR DELETE ON subscriptions
    FOR EACH ROW EXECUTE FUNCTION moved();
CREATE TRIGGER runs_moved AFTER INSERT OR UPDATE OR DELETE ON runs
    FOR EACH ROW EXECUTE FUNCTION moved();
CREATE TRIGGER workspaces_moved AFTER INSERT OR UPDATE OR DELETE ON workspaces
    FOR EACH ROW EXECUTE FUNCTION moved();

-- Says at once that something moved, and who moved it.
CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('callboard', coalesce(current_setting('callboard.replica', true), ''));
    RETURN NULL;
END $$;

CREATE TRIGGER moves_told AFTER INSERT ON moves FOR EACH STATEMENT EXECUTE FUNCTION told();

-- requests that must not be obeyed twice
CREATE TABLE seen (
    key   TEXT COLLATE "C" PRIMARY KEY,
    until BIGINT NOT NULL
);

CREATE INDEX seen_until ON seen (until);

-- who was allowed or denied what; the hash of each row is over the one before it too
CREATE TABLE audit (
    number   BIGINT PRIMARY KEY,
    at       BIGINT NOT NULL,
    person   TEXT COLLATE "C" NOT NULL,
    room     TEXT COLLATE "C" NOT NULL,
    action   TEXT NOT NULL,
    decision TEXT COLLATE "C" NOT NULL CHECK (decision IN ('allowed', 'denied', 'withheld')),
    reason   TEXT COLLATE "C" NOT NULL,
    count    BIGINT NOT NULL,
    hash     TEXT COLLATE "C" NOT NULL
);

-- 'anchor': the last row that was deleted because of its age; 'head': the newest
CREATE TABLE audit_ends (
    name   TEXT COLLATE "C" PRIMARY KEY CHECK (name IN ('anchor', 'head')),
    number BIGINT NOT NULL,
    hash   TEXT COLLATE "C" NOT NULL
);

INSERT INTO audit_ends VALUES ('anchor', 0, ''), ('head', 0, '');
