-- The journal of TIE. 0x54494531 is "TIE1": `file` and other programs can tell what it is.
PRAGMA application_id = 1414087985;

-- One row a message, never changed until retention removes its body and later all of it. Times are microseconds since 1970 in UTC. The keys stand before the body, so that
-- reading them never touches the pages that a long body overflows into. A sequence is never used twice: `mark` remembers the
-- last one when retention removes messages.
CREATE TABLE message (
  sequence            INTEGER PRIMARY KEY,
  received            INTEGER NOT NULL,
  listener            TEXT    NOT NULL,
  peer                TEXT    NOT NULL,
  control_id          TEXT    NOT NULL,
  trigger_event       TEXT    NOT NULL,
  sending_application TEXT    NOT NULL,
  sending_facility    TEXT    NOT NULL,
  patient             TEXT    NOT NULL,
  nhs_number          TEXT    NOT NULL,
  local_number        TEXT    NOT NULL,
  visit               TEXT    NOT NULL,
  orders              TEXT    NOT NULL, -- a JSON list; empty for none
  flag                TEXT,             -- a remark for a person
  quarantine          TEXT,             -- why no route or parser could take it
  codec               INTEGER NOT NULL, -- 0 plain, 1 zstd, 2 zstd with the first dictionary
  size_bytes          INTEGER NOT NULL, -- unpacked
  hash                BLOB    NOT NULL, -- SHA-256 of the unpacked bytes
  body                BLOB              -- none once retention has removed it
) STRICT;
-- Times rise nearly always: a page at the end is written, whatever the size of the table.
CREATE INDEX message_received ON message (received);
CREATE INDEX message_with_body ON message (sequence) WHERE body IS NOT NULL;
CREATE INDEX message_quarantined ON message (sequence) WHERE quarantine IS NOT NULL;

-- What is owed and not ended: small rows, read by destination in order of arrival.
CREATE TABLE pending (
  destination   TEXT    NOT NULL,
  sequence      INTEGER NOT NULL,
  route         TEXT    NOT NULL,
  lanes         TEXT    NOT NULL, -- a JSON list
  received      INTEGER NOT NULL,
  state         INTEGER NOT NULL, -- 0 ready, 1 retrying, 2 parked, 3 held
  attempts      INTEGER NOT NULL,
  first_attempt INTEGER,
  PRIMARY KEY (destination, sequence, route)
) STRICT, WITHOUT ROWID;
-- What is not simply ready: few rows, so that ages by state are found without a scan.
CREATE INDEX pending_waiting ON pending (destination, state, sequence) WHERE state <> 0;

-- One row a delivery, written when it ends or first fails.
CREATE TABLE delivery (
  id            INTEGER PRIMARY KEY,
  sequence      INTEGER NOT NULL,
  route         TEXT    NOT NULL,
  destination   TEXT    NOT NULL,
  state         INTEGER NOT NULL, -- as pending, and 4 filtered, 5 delivered, 6 dead; 0 after a replay was asked for
  at            INTEGER NOT NULL,
  attempts      INTEGER NOT NULL,
  first_attempt INTEGER,
  revision      TEXT    NOT NULL,
  reason        TEXT    NOT NULL,
  class         TEXT,             -- unavailable, uncertain, rejected, misconfigured
  lanes         TEXT    NOT NULL,
  output        BLOB,             -- what was sent: codec, length, hash, packed payloads
  detail        BLOB              -- what the receiver said in full, packed alike
) STRICT;
CREATE UNIQUE INDEX delivery_of_message ON delivery (sequence, route, destination);
CREATE INDEX delivery_for_a_person ON delivery (state, sequence, destination) WHERE state IN (1, 2, 3, 6);

-- What messages are found by: 1 control id, 2 patient, 3 NHS number, 4 local number, 5 visit, 6 order. Filled in sorted
-- blocks behind the intake, up to `mark`: each has the messages after the block before it up to the one it is named by.
CREATE TABLE search (
  block    INTEGER NOT NULL,
  kind     INTEGER NOT NULL,
  value    TEXT    NOT NULL,
  sequence INTEGER NOT NULL,
  PRIMARY KEY (block, kind, value, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE mark (
  name  TEXT    PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO mark VALUES ('searched', 0), ('last', 0);

-- What holds for the whole journal: `paused` why nothing is delivered, `retained` when retention last removed something.
CREATE TABLE note (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What persons have decided: who, when, why.
CREATE TABLE audit (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  at         INTEGER NOT NULL,
  action     TEXT    NOT NULL, -- replay, release, skip, …
  who        TEXT    NOT NULL,
  why        TEXT    NOT NULL,
  asked      TEXT    NOT NULL, -- the filter, as JSON
  deliveries INTEGER NOT NULL
) STRICT;
