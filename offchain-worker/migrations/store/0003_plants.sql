-- What this host committed itself to in an epoch: a plant, or nothing. Written before the commitment is sent.
CREATE TABLE plants (
    epoch INTEGER PRIMARY KEY,
    -- SCALE of the plan.
    plan  BLOB    NOT NULL
) WITHOUT ROWID;
