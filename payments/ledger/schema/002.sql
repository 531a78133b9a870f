-- One channel may serve several titles, one after the other. A row holds what it
-- paid for a title that it served before another one; what channels.title has is
-- the channel's amounts less all of these.
CREATE TABLE channel_titles (
	channel     BLOB    NOT NULL CHECK (length(channel) = 32),
	title       BLOB    NOT NULL CHECK (length(title) = 20),
	ordinal     INTEGER NOT NULL CHECK (ordinal >= 0), -- 0: the title that the channel was opened for
	name        TEXT    NOT NULL,
	rate        INTEGER NOT NULL,
	royalty     INTEGER NOT NULL,
	commitments INTEGER NOT NULL CHECK (commitments >= 0),
	bytes       INTEGER NOT NULL CHECK (bytes >= 0),
	payee       INTEGER NOT NULL CHECK (payee >= 0),
	creator     INTEGER NOT NULL CHECK (creator >= 0),
	PRIMARY KEY (channel, title)
) STRICT, WITHOUT ROWID;
CREATE INDEX channel_titles_title ON channel_titles (title);
CREATE TRIGGER channel_titles_never_back BEFORE UPDATE ON channel_titles
WHEN new.bytes < old.bytes OR new.payee < old.payee OR new.creator < old.creator OR new.ordinal != old.ordinal
BEGIN SELECT raise(ABORT, 'a title loses what it was paid'); END;
CREATE TRIGGER channel_titles_no_delete BEFORE DELETE ON channel_titles
BEGIN SELECT raise(ABORT, 'titles of channels are kept'); END;

-- What the newest commitment of a channel pays to each creator. Of channels that
-- are older than this table the creator is not known.
CREATE TABLE channel_creators (
	channel BLOB    NOT NULL CHECK (length(channel) = 32),
	hash    BLOB    NOT NULL CHECK (length(hash) = 20), -- of the creator's address
	amount  INTEGER NOT NULL CHECK (amount >= 0),
	PRIMARY KEY (channel, hash)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER channel_creators_never_back BEFORE UPDATE ON channel_creators WHEN new.amount < old.amount
BEGIN SELECT raise(ABORT, 'an older commitment'); END;
CREATE TRIGGER channel_creators_no_delete BEFORE DELETE ON channel_creators
BEGIN SELECT raise(ABORT, 'creators of channels are kept'); END;

-- What the program remembers and may forget: when it did something last.
CREATE TABLE marks (
	name  TEXT PRIMARY KEY NOT NULL,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A further purpose, consolidation. SQLite changes no constraint of a table.
CREATE TABLE outgoing_next (
	seq          INTEGER PRIMARY KEY AUTOINCREMENT,
	txid         BLOB    NOT NULL UNIQUE CHECK (length(txid) = 32),
	raw          BLOB    NOT NULL,
	prev_outputs BLOB,
	purpose      TEXT    NOT NULL CHECK (purpose IN ('funding', 'close', 'refund', 'sweep', 'send', 'consolidation')),
	channel      BLOB    CHECK (length(channel) = 32),
	fee          INTEGER NOT NULL CHECK (fee >= 0),
	state        TEXT    NOT NULL CHECK (state IN ('pending', 'seen', 'mined', 'conflicted')),
	height       INTEGER NOT NULL,
	final        INTEGER NOT NULL CHECK (final IN (0, 1)),
	tries        INTEGER NOT NULL,
	next_try     INTEGER NOT NULL,
	last_error   TEXT    NOT NULL,
	created      INTEGER NOT NULL
) STRICT;
INSERT INTO outgoing_next SELECT * FROM outgoing;
DROP TABLE outgoing;
ALTER TABLE outgoing_next RENAME TO outgoing;
CREATE INDEX outgoing_watched ON outgoing (next_try) WHERE final = 0;
CREATE INDEX outgoing_purpose ON outgoing (purpose);
