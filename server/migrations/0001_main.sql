-- What the server remembers: who may come in, and for each space its log and what was folded from it.
--
-- The key of every table begins with space_id, and every query names it, so the tables of a space can be put
-- on a node of their own (Citus: create_distributed_table(…, 'space_id')). Hence no foreign key and no unique
-- constraint reaches across spaces. Accounts, devices, tokens, challenges and invitation_spaces are asked for
-- before the space is known: on Citus they are reference tables. Names of collections and records compare by
-- bytes (COLLATE "C") on every Postgres alike.

CREATE EXTENSION IF NOT EXISTS vector;

-- Who may come in

CREATE TABLE accounts (
    account_id  uuid PRIMARY KEY,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE devices (
    device_id   uuid PRIMARY KEY,
    account_id  uuid NOT NULL REFERENCES accounts,
    public_key  bytea NOT NULL CHECK (octet_length(public_key) = 32),   -- Ed25519
    name        text NOT NULL,
    enrolled_at timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);
CREATE INDEX devices_of_account ON devices (account_id);

CREATE TABLE tokens (
    token_hash  bytea PRIMARY KEY,              -- never the token itself
    device_id   uuid NOT NULL REFERENCES devices ON DELETE CASCADE,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX tokens_of_device ON tokens (device_id);
CREATE INDEX tokens_by_end ON tokens (expires_at);

CREATE TABLE challenges (
    nonce       bytea PRIMARY KEY,
    device_id   uuid,                           -- null: before the device is known
    expires_at  timestamptz NOT NULL
);
CREATE INDEX challenges_by_end ON challenges (expires_at);

-- Spaces

CREATE TABLE spaces (
    space_id     uuid PRIMARY KEY,
    account_id   uuid NOT NULL,
    generation   uuid NOT NULL,                 -- which history the cursors belong to
    head         bigint NOT NULL DEFAULT 0,     -- the newest position in the log
    created_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);                       -- every commit rewrites the row: room for it on its own page
CREATE INDEX spaces_of_account ON spaces (account_id);
-- Not on head: a row whose indexed columns stay is rewritten without touching any index.

CREATE TABLE members (
    space_id    uuid NOT NULL,
    device_id   uuid NOT NULL,
    cursor      bigint NOT NULL DEFAULT 0,      -- how far the device has read, as far as it told
    documents_until bigint NOT NULL DEFAULT 0,  -- a cursor below this may stand amid documents: go on with documents, not the log
    joined_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (space_id, device_id)
) WITH (fillfactor = 70);
CREATE INDEX members_of_device ON members (device_id);

CREATE TABLE invitations (
    space_id      uuid NOT NULL,
    invitation_id bytea NOT NULL,
    public_key    bytea NOT NULL CHECK (octet_length(public_key) = 32), -- its secret half was never here
    sealed        bytea NOT NULL,               -- the space key, sealed to the invitation
    created_by    uuid NOT NULL,
    expires_at    timestamptz NOT NULL,
    used_by       uuid,
    used_at       timestamptz,
    PRIMARY KEY (space_id, invitation_id)
);

CREATE TABLE invitation_spaces (                -- who joins knows the invitation, not yet the space
    invitation_id bytea PRIMARY KEY,
    space_id      uuid NOT NULL
);

-- The log

CREATE TABLE writers (
    space_id    uuid NOT NULL,
    client_id   bigint NOT NULL CHECK (client_id BETWEEN 1 AND 9007199254740991),
    device_id   uuid NOT NULL,
    incarnation bigint NOT NULL,
    through     bigint NOT NULL DEFAULT 0,      -- the highest n that was admitted or refused
    PRIMARY KEY (space_id, device_id, incarnation),
    UNIQUE (space_id, client_id)
) WITH (fillfactor = 70);

CREATE TABLE log (
    space_id    uuid NOT NULL,
    position    bigint NOT NULL,                -- from 1, without gaps: counted by spaces.head in the same transaction
    collection  text COLLATE "C" NOT NULL,
    record_id   text COLLATE "C" NOT NULL,
    device_id   uuid NOT NULL,
    incarnation bigint NOT NULL,
    n           bigint NOT NULL,
    client_id   bigint NOT NULL,
    clock_start bigint NOT NULL,
    clock_end   bigint NOT NULL,                -- exclusive
    update      bytea STORAGE EXTERNAL NOT NULL,
    admitted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (space_id, position)
);
CREATE INDEX log_of_record ON log (space_id, collection, record_id, position);

CREATE TABLE refusals (                         -- what was not admitted: told again on a repeat, kept for people
    space_id    uuid NOT NULL,
    device_id   uuid NOT NULL,
    incarnation bigint NOT NULL,
    n           bigint NOT NULL,
    collection  text COLLATE "C" NOT NULL,
    record_id   text COLLATE "C" NOT NULL,
    update      bytea STORAGE EXTERNAL NOT NULL,
    code        text NOT NULL,
    detail      text NOT NULL,
    refused_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (space_id, device_id, incarnation, n)
);

-- What was folded from it

CREATE TABLE materializations (                 -- apart from spaces: whoever folds never waits for, nor holds, who commits
    space_id    uuid PRIMARY KEY,               -- no row: nothing was folded yet
    position    bigint NOT NULL DEFAULT 0,      -- documents, digest and records stand here; every update up to it was folded
    digest      bytea NOT NULL DEFAULT '\x00000000000000000000000000000000' CHECK (octet_length(digest) = 16),
    records     bigint NOT NULL DEFAULT 0       -- documents, deleted ones too
) WITH (fillfactor = 50);

CREATE TABLE documents (
    space_id    uuid NOT NULL,
    collection  text COLLATE "C" NOT NULL,
    record_id   text COLLATE "C" NOT NULL,
    position    bigint NOT NULL,                -- the last one that is in the snapshot
    snapshot    bytea STORAGE EXTERNAL NOT NULL,
    clocks      bytea NOT NULL,                 -- MessagePack map: client id -> next clock
    digest      bytea NOT NULL CHECK (octet_length(digest) = 16),
    deleted     boolean NOT NULL DEFAULT false,
    value       jsonb,                          -- null: not to be shown as JSON
    PRIMARY KEY (space_id, collection, record_id)
);
CREATE INDEX documents_by_position ON documents (space_id, position);

CREATE TABLE quarantine (                       -- log entries that could not be folded; the space goes on without them
    space_id    uuid NOT NULL,
    position    bigint NOT NULL,
    collection  text COLLATE "C" NOT NULL,
    record_id   text COLLATE "C" NOT NULL,
    reason      text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (space_id, position)
);
