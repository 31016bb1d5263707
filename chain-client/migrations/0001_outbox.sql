-- Calls on their way to the chain.
CREATE TABLE items (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         INTEGER NOT NULL,
    -- What makes two items of a kind the same.
    key          BLOB    NOT NULL,
    -- SCALE of the item.
    payload      BLOB    NOT NULL,
    -- 0 pending, 1 done (its effect is finalized), 2 dropped.
    state        INTEGER NOT NULL DEFAULT 0,
    -- Last block at which it is worth sending.
    deadline     INTEGER NOT NULL,
    -- Blocks to wait for its effect before it is sent again.
    retry_blocks INTEGER NOT NULL,
    -- Best block when it was last handed to the pool; NULL when it is free to be sent.
    submitted_at INTEGER,
    -- How often the pool refused it.
    refusals     INTEGER NOT NULL DEFAULT 0,
    -- Block in which it was settled (done or dropped).
    settled_at   INTEGER,
    -- Why it was dropped, or what went wrong last.
    reason       TEXT,
    UNIQUE (kind, key)
);
CREATE INDEX items_pending ON items (state, kind, id);

-- Transactions that carry items, so that a refusal in a block is read as an answer to us and to nobody else.
CREATE TABLE transactions (
    hash         BLOB    NOT NULL,
    item         INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    submitted_at INTEGER NOT NULL,
    PRIMARY KEY (hash, item)
) WITHOUT ROWID;

-- The last finalized block whose events were read. One row.
CREATE TABLE progress (
    id        INTEGER PRIMARY KEY CHECK (id = 0),
    finalized INTEGER NOT NULL
);

-- The chain that all of this is about, by the hash of its block 0. One row.
CREATE TABLE chain (
    id      INTEGER PRIMARY KEY CHECK (id = 0),
    genesis BLOB    NOT NULL
);
