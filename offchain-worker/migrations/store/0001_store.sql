-- What this host ran: the payload is written before the work begins, the transcript before the record is announced.
CREATE TABLE inferences (
    request_id BLOB    PRIMARY KEY,
    epoch      INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    -- SCALE of the payload.
    payload    BLOB    NOT NULL,
    -- SCALE of the transcript; NULL until the answer is complete.
    transcript BLOB
) WITHOUT ROWID;
CREATE INDEX inferences_epoch ON inferences (epoch);

-- Signed words of executors.
CREATE TABLE receipts (
    request_id BLOB    PRIMARY KEY,
    epoch      INTEGER NOT NULL,
    -- SCALE of the signed receipt.
    receipt    BLOB    NOT NULL
) WITHOUT ROWID;
CREATE INDEX receipts_epoch ON receipts (epoch);

-- This host's own sprint: one row per nonce.
CREATE TABLE sprint_results (
    epoch      INTEGER NOT NULL,
    profile    INTEGER NOT NULL,
    nonce      INTEGER NOT NULL,
    root       BLOB    NOT NULL,
    transcript BLOB    NOT NULL,
    PRIMARY KEY (epoch, profile, nonce)
) WITHOUT ROWID;

-- What it committed to. Written before the commitment is sent, and never changed.
CREATE TABLE sprint_commitments (
    epoch   INTEGER NOT NULL,
    profile INTEGER NOT NULL,
    root    BLOB    NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (epoch, profile)
) WITHOUT ROWID;

-- Inferences of other hosts that this host checked, or tried to.
CREATE TABLE verified (
    epoch     INTEGER NOT NULL,
    idx       INTEGER NOT NULL,
    -- SCALE of the outcome.
    outcome   BLOB    NOT NULL,
    PRIMARY KEY (epoch, idx)
) WITHOUT ROWID;

-- How far each duty has come. Small, named, any shape.
CREATE TABLE progress (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- The chain that all of this is about, by the hash of its block 0. One row.
CREATE TABLE chain (
    id      INTEGER PRIMARY KEY CHECK (id = 0),
    genesis BLOB    NOT NULL
);
