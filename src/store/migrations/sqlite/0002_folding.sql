-- Messages that tell several changes, lanes, notices, and what is remembered of destinations.
--
-- A notice is stored like a change: a row in `changes` whose workspace is '' and whose run is the notice's subject,
-- counted up from 1. So the foreign key, the order of a queue and the dedup key serve both.
--
-- `deliveries.subscription` holds the ids of all subscriptions that asked, separated by commas; '' for a notice.

ALTER TABLE workspaces ADD COLUMN seen_at INTEGER;

-- 1 goes before progress, 2 before everything
ALTER TABLE deliveries ADD COLUMN urgent INTEGER NOT NULL DEFAULT 0;
-- of a head: 2 less the most urgent of its queue that is open
ALTER TABLE deliveries ADD COLUMN lane INTEGER NOT NULL DEFAULT 2;
-- found after a time without sight of the workspace
ALTER TABLE deliveries ADD COLUMN missed INTEGER NOT NULL DEFAULT 0;
-- the number of the row whose message tells this one too: open ones are bound to it, superseded ones were told by it
ALTER TABLE deliveries ADD COLUMN carrier INTEGER;
-- why its message tells others too
ALTER TABLE deliveries ADD COLUMN folding TEXT CHECK (folding IN ('rate', 'late'));
-- the id of its message where that is not its own; '': the next attempt takes a new one
ALTER TABLE deliveries ADD COLUMN wire_id TEXT;
-- 1: it was in a digest that the platform refused, and is folded no more; 2: and came apart from a message that may
-- have arrived under its own id
ALTER TABLE deliveries ADD COLUMN alone INTEGER NOT NULL DEFAULT 0;
-- attempts that failed and count for its schedule
ALTER TABLE deliveries ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
-- when the first attempt began that may have arrived
ALTER TABLE deliveries ADD COLUMN unknown_at INTEGER;

-- who claimed it last; here there is only one
ALTER TABLE deliveries ADD COLUMN owner INTEGER NOT NULL DEFAULT 0;

CREATE TABLE destinations (
    destination TEXT PRIMARY KEY,
    place       TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row. What was ever owed, and what became of the deliveries that were deleted since.
CREATE TABLE ledger (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    owed       INTEGER NOT NULL,
    -- subscriptions that another one's message served as well
    merged     INTEGER NOT NULL,
    delivered  INTEGER NOT NULL,
    folded     INTEGER NOT NULL,
    suppressed INTEGER NOT NULL,
    dead       INTEGER NOT NULL
) STRICT;

INSERT INTO ledger SELECT 1, count(*), 0, 0, 0, 0, 0 FROM deliveries;

UPDATE deliveries SET tries = attempt WHERE state IN ('pending', 'in_flight', 'unknown');

UPDATE deliveries SET urgent = (
    SELECT CASE
        WHEN NOT json_valid(c.json) THEN 0
        WHEN json_extract(c.json, '$.type') IN ('run.waiting', 'run.lost') THEN 2
        WHEN json_extract(c.json, '$.type') IN ('run.stage.changed', 'run.finished')
          AND json_extract(c.json, '$.to') = 'Fail' THEN 2
        WHEN json_extract(c.json, '$.type') = 'run.finished' THEN 1
        ELSE 0 END
    FROM changes AS c
    WHERE c.workspace = deliveries.workspace AND c.run = deliveries.run AND c.sequence = deliveries.sequence)
WHERE state NOT IN ('delivered', 'superseded');

UPDATE deliveries SET lane = 2 - (
    SELECT max(behind.urgent) FROM deliveries AS behind
    WHERE behind.destination = deliveries.destination AND behind.workspace = deliveries.workspace
      AND behind.run = deliveries.run AND behind.state IN ('pending', 'in_flight', 'unknown'))
WHERE head = 1 AND state IN ('pending', 'in_flight', 'unknown');

UPDATE deliveries SET unknown_at = ifnull(
    (SELECT min(a.started_at) FROM attempts AS a WHERE a.delivery = deliveries.number AND a.outcome = 'unknown'),
    iif(state = 'unknown', created_at, NULL))
WHERE state NOT IN ('delivered', 'superseded');

DROP INDEX deliveries_due;
CREATE INDEX deliveries_due ON deliveries (destination, lane, next_at)
    WHERE head = 1 AND state IN ('pending', 'unknown') AND carrier IS NULL;

CREATE INDEX deliveries_in_flight ON deliveries (destination) WHERE state = 'in_flight';

-- what a digest may tell, runs with something urgent first
CREATE INDEX deliveries_foldable ON deliveries (destination, head, coalesce(template, ''), lane, number)
    WHERE state = 'pending' AND unknown_at IS NULL AND alone = 0 AND carrier IS NULL AND workspace <> '';

-- what a message is to tell beside its own, and what it has told
CREATE INDEX deliveries_bound ON deliveries (carrier) WHERE carrier IS NOT NULL AND state = 'pending';

CREATE INDEX deliveries_told ON deliveries (carrier) WHERE carrier IS NOT NULL AND state = 'superseded';

-- in the words that PostgreSQL knows too
DROP INDEX subscriptions_once;
CREATE UNIQUE INDEX subscriptions_once
    ON subscriptions (workspace, coalesce(run, ''), destination, coalesce(template, ''));

DROP INDEX deliveries_once;
CREATE UNIQUE INDEX deliveries_once
    ON deliveries (run, workspace, sequence, destination, coalesce(template, ''));

-- requests that must not be obeyed twice
CREATE TABLE seen (
    key   TEXT PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX seen_until ON seen (until);

-- who was allowed or denied what; the hash of each row is over the one before it too
CREATE TABLE audit (
    number   INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    person   TEXT NOT NULL,
    room     TEXT NOT NULL,
    action   TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('allowed', 'denied', 'withheld')),
    reason   TEXT NOT NULL,
    count    INTEGER NOT NULL,
    hash     TEXT NOT NULL
) STRICT;

-- 'anchor': the last row that was deleted because of its age; 'head': the newest
CREATE TABLE audit_ends (
    name   TEXT PRIMARY KEY CHECK (name IN ('anchor', 'head')),
    number INTEGER NOT NULL,
    hash   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO audit_ends VALUES ('anchor', 0, ''), ('head', 0, '');
