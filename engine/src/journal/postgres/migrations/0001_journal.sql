-- The journal of TIE in PostgreSQL, in the schema `tie`. Texts are compared by their bytes (COLLATE "C"): order is the
-- engine's own, and an index survives a new version of the system's collations. Times are microseconds since 1970 in
-- UTC. Bodies are packed already: PostgreSQL is told not to try again, and keeps those below 8 kB in the row.

-- One row: how far the sequences were, and how much was kept, when it was last written: with every step of retention, at
-- the end, and every few seconds; not with every commit, whose versions of the row would lie in the way of the next.
CREATE TABLE head (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  last     bigint  NOT NULL,
  messages bigint  NOT NULL, -- how many are kept
  used     bigint  NOT NULL, -- what they and their ended deliveries take, in bytes, nearly
  searched bigint  NOT NULL  -- up to here `search` has the keys of all messages; written with the last of them
);
INSERT INTO head (last, messages, used, searched) VALUES (0, 0, 0, 0);

-- The engines that may write. Each start takes the next token, and each transaction names its own and locks the row:
-- an engine that has been followed by another cannot commit any more. The row is locked until the transaction has ended,
-- so numbers become visible in their order, whoever commits: a reader that goes by "after sequence" misses nothing.
CREATE TABLE node (
  name  text   COLLATE "C" PRIMARY KEY,
  token bigint NOT NULL
);

-- What holds for the whole journal: `paused` why nothing is delivered, `retained` when retention last removed
-- something, `place` which database this is.
CREATE TABLE note (
  name  text COLLATE "C" PRIMARY KEY,
  value text NOT NULL
);

-- One row a message, never changed until retention removes its body and later all of it.
CREATE TABLE message (
  sequence            bigint   PRIMARY KEY,
  received            bigint   NOT NULL,
  listener            text     COLLATE "C" NOT NULL,
  peer                text     COLLATE "C" NOT NULL,
  control_id          text     COLLATE "C" NOT NULL,
  trigger_event       text     COLLATE "C" NOT NULL,
  sending_application text     COLLATE "C" NOT NULL,
  sending_facility    text     COLLATE "C" NOT NULL,
  patient             text     COLLATE "C" NOT NULL,
  nhs_number          text     COLLATE "C" NOT NULL,
  local_number        text     COLLATE "C" NOT NULL,
  visit               text     COLLATE "C" NOT NULL,
  orders              text     COLLATE "C" NOT NULL, -- a JSON list; empty for none
  flag                text     COLLATE "C",  -- a remark for a person
  quarantine          text     COLLATE "C",  -- why no route or parser could take it
  codec               bigint   NOT NULL,     -- 0 plain, 1 zstd, 2 zstd with the first dictionary
  size_bytes          bigint   NOT NULL,     -- unpacked
  hash                bytea    NOT NULL,     -- SHA-256 of the unpacked bytes
  body                bytea              -- none once retention has removed it
) WITH (toast_tuple_target = 8160);
ALTER TABLE message ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX message_with_body ON message (sequence) WHERE body IS NOT NULL;
CREATE INDEX message_quarantined ON message (sequence) WHERE quarantine IS NOT NULL;

-- Between which sequences all messages lie that were received in ten minutes: few rows, so that a search by time reads
-- few. Some numbers are put in beyond the last, so that a row is written once for many messages.
CREATE TABLE span (
  began bigint PRIMARY KEY, -- a multiple of ten minutes
  first bigint NOT NULL,
  last  bigint NOT NULL
);

-- What is owed and not ended: small rows, read by destination in order of arrival, soon deleted. Vacuumed often.
CREATE TABLE pending (
  destination   text     COLLATE "C" NOT NULL,
  sequence      bigint   NOT NULL,
  route         text     COLLATE "C" NOT NULL,
  lanes         text     NOT NULL, -- a JSON list
  received      bigint   NOT NULL,
  state         bigint   NOT NULL, -- 0 ready, 1 retrying, 2 parked, 3 held
  attempts      bigint   NOT NULL,
  first_attempt bigint,
  PRIMARY KEY (destination, sequence, route)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
-- What is not simply ready: few rows, so that ages by state are found without a scan.
CREATE INDEX pending_waiting ON pending (destination, state, sequence) WHERE state <> 0;
-- The unfinished deliveries of one message.
CREATE INDEX pending_of_message ON pending (sequence);

-- One row a delivery, written when it ends or first fails.
CREATE TABLE delivery (
  sequence      bigint   NOT NULL,
  route         text     COLLATE "C" NOT NULL,
  destination   text     COLLATE "C" NOT NULL,
  state         bigint   NOT NULL, -- as pending, and 4 filtered, 5 delivered, 6 dead; 0 after a replay was asked for
  at            bigint   NOT NULL,
  attempts      bigint   NOT NULL,
  first_attempt bigint,
  revision      text     COLLATE "C" NOT NULL,
  reason        text     NOT NULL,
  class         text     COLLATE "C", -- unavailable, uncertain, rejected, misconfigured
  lanes         text     NOT NULL,
  output        bytea,             -- what was sent: codec, length, hash, packed payloads
  detail        bytea,             -- what the receiver said in full, packed alike
  PRIMARY KEY (sequence, route, destination)
) WITH (toast_tuple_target = 8160);
ALTER TABLE delivery ALTER COLUMN output SET STORAGE EXTERNAL, ALTER COLUMN detail SET STORAGE EXTERNAL;
-- What a person must look at, in order; and the oldest dead letter of a destination.
CREATE INDEX delivery_for_a_person ON delivery (sequence, route, destination) WHERE state IN (1, 2, 3, 6);
CREATE INDEX delivery_dead ON delivery (destination, sequence) WHERE state = 6;

-- What messages are found by, written block by block behind the intake. A row has many keys: of one kind and one part of
-- all hashes of values (a list), among the messages of one block. Whoever searches compares the value itself as well.
CREATE TABLE search (
  list  bigint NOT NULL, -- 128 times the kind (1 control id, 2 patient, 3 NHS number, 4 local number, 5 visit, 6 order), and the first 7 bits of the hash
  block bigint NOT NULL, -- of the messages whose sequence, divided by 8192, is this
  part  bigint NOT NULL, -- 2^32 times the remainder of the last sequence that was there when it was written, and which of several rows
  low   bigint NOT NULL, -- the lowest and highest of `keys`: the next 32 bits of the hash
  high  bigint NOT NULL,
  keys  bytea  NOT NULL, -- sorted; 6 bytes each: 32 bits of the hash, and the sequence's remainder
  PRIMARY KEY (list, block, part)
);
ALTER TABLE search ALTER COLUMN keys SET STORAGE EXTERNAL;

-- Blocks of `search` with keys of messages that retention has removed: they lead nowhere, and go when a quarter has gone.
CREATE TABLE stale (
  block bigint PRIMARY KEY,
  kept  bigint NOT NULL, -- messages that were there when it was last gone through
  gone  bigint NOT NULL, -- of these
  list  bigint NOT NULL  -- from here on it is still to be gone through
);
CREATE INDEX stale_due ON stale (block) WHERE gone * 4 >= kept;

-- What persons have decided: who, when, why.
CREATE TABLE audit (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         bigint NOT NULL,
  action     text   NOT NULL, -- replay, release, skip, …
  who        text   NOT NULL,
  why        text   NOT NULL,
  asked      text   NOT NULL, -- the filter, as JSON
  deliveries bigint NOT NULL
);
