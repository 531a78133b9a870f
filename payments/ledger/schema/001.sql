-- Amounts are satoshis, times milliseconds since 1970 (0: none), hashes in internal byte order.

CREATE TABLE channels (
	id            BLOB    PRIMARY KEY NOT NULL CHECK (length(id) = 32),
	role          INTEGER NOT NULL CHECK (role IN (1, 2)),          -- 1 payer, 2 payee
	state         TEXT    NOT NULL CHECK (state IN ('opening', 'open', 'closing', 'closed', 'refunded', 'failed')),
	title         BLOB    NOT NULL CHECK (length(title) = 20),      -- info hash
	title_name    TEXT    NOT NULL,
	remote        TEXT    NOT NULL,
	peer_key      BLOB    NOT NULL CHECK (length(peer_key) = 33),
	key_index     INTEGER NOT NULL,
	funding_txid  BLOB    CHECK (length(funding_txid) = 32),
	funding_index INTEGER NOT NULL,
	capacity      INTEGER NOT NULL CHECK (capacity BETWEEN 0 AND 2100000000000000),
	refund_height INTEGER NOT NULL,
	rate          INTEGER NOT NULL,
	royalty       INTEGER NOT NULL,
	seq           INTEGER NOT NULL CHECK (seq >= 0),
	bytes         INTEGER NOT NULL CHECK (bytes >= 0),
	payee         INTEGER NOT NULL CHECK (payee >= 0),
	creator       INTEGER NOT NULL CHECK (creator >= 0),
	snapshot      BLOB,
	close_txid    BLOB    CHECK (length(close_txid) = 32),
	fee           INTEGER NOT NULL CHECK (fee >= 0),
	created       INTEGER NOT NULL,
	updated       INTEGER NOT NULL,
	CHECK (payee + creator <= capacity)
) STRICT;
CREATE INDEX channels_open ON channels (role) WHERE (state IN ('opening', 'open', 'closing'));
CREATE INDEX channels_title ON channels (title);
CREATE INDEX channels_funding ON channels (funding_txid) WHERE funding_txid IS NOT NULL;
CREATE INDEX channels_close ON channels (close_txid) WHERE close_txid IS NOT NULL;

-- A commitment is never replaced by an older one, whatever the program does.
CREATE TRIGGER channels_never_back BEFORE UPDATE ON channels
WHEN new.seq < old.seq OR new.seq = old.seq AND (new.payee != old.payee OR new.creator != old.creator)
BEGIN SELECT raise(ABORT, 'an older commitment'); END;
CREATE TRIGGER channels_no_delete BEFORE DELETE ON channels
BEGIN SELECT raise(ABORT, 'channels are kept'); END;

CREATE TABLE outgoing (
	seq          INTEGER PRIMARY KEY AUTOINCREMENT,
	txid         BLOB    NOT NULL UNIQUE CHECK (length(txid) = 32),
	raw          BLOB    NOT NULL,
	prev_outputs BLOB,
	purpose      TEXT    NOT NULL CHECK (purpose IN ('funding', 'close', 'refund', 'sweep', 'send')),
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
CREATE INDEX outgoing_watched ON outgoing (next_try) WHERE final = 0;
CREATE INDEX outgoing_purpose ON outgoing (purpose);

CREATE TABLE coins (
	txid      BLOB    NOT NULL CHECK (length(txid) = 32),
	idx       INTEGER NOT NULL,
	value     INTEGER NOT NULL CHECK (value BETWEEN 0 AND 2100000000000000),
	script    BLOB    NOT NULL,
	branch    INTEGER NOT NULL,
	key_index INTEGER NOT NULL,
	height    INTEGER NOT NULL,
	state     TEXT    NOT NULL CHECK (state IN ('pending', 'unspent', 'reserved', 'spent', 'void')),
	spent_by  BLOB    CHECK (length(spent_by) = 32),
	origin    TEXT    NOT NULL CHECK (origin IN ('receive', 'change', 'earning', 'refund')),
	PRIMARY KEY (txid, idx)
) STRICT, WITHOUT ROWID;
CREATE INDEX coins_spender ON coins (spent_by) WHERE spent_by IS NOT NULL;
CREATE INDEX coins_key ON coins (branch, key_index);
CREATE INDEX coins_state ON coins (state);

CREATE TABLE keys (
	branch INTEGER PRIMARY KEY NOT NULL,
	next   INTEGER NOT NULL
) STRICT;
CREATE TRIGGER keys_never_back BEFORE UPDATE ON keys WHEN new.next < old.next
BEGIN SELECT raise(ABORT, 'key indexes are handed out once'); END;

CREATE TABLE claims (
	name  TEXT PRIMARY KEY NOT NULL,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE entries (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	tx_group INTEGER NOT NULL,
	at       INTEGER NOT NULL,
	about    TEXT    NOT NULL CHECK (about IN ('channel', 'payment', 'coin')),
	subject  BLOB    NOT NULL,
	account  TEXT    NOT NULL,
	amount   INTEGER NOT NULL CHECK (amount != 0),
	channel  BLOB    CHECK (length(channel) = 32),
	title    BLOB    CHECK (length(title) = 20),
	txid     BLOB    CHECK (length(txid) = 32),
	note     TEXT    NOT NULL
) STRICT;
CREATE INDEX entries_subject ON entries (about, subject);
CREATE INDEX entries_group ON entries (tx_group);
CREATE INDEX entries_account ON entries (account, amount);
CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;
