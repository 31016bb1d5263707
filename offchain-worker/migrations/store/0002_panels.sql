-- What this host says as a member of a panel. Written before the commitment is sent, and never changed.
CREATE TABLE panel_votes (
    epoch   INTEGER NOT NULL,
    idx     INTEGER NOT NULL,
    round   INTEGER NOT NULL,
    -- SCALE of the reveal: outcome and salt.
    reveal  BLOB    NOT NULL,
    PRIMARY KEY (epoch, idx, round)
) WITHOUT ROWID;
