-- Search: vectors as devices made them, and the texts of what was folded. Nothing here is the only copy: texts
-- come from documents, vectors from devices.

-- Vectors

CREATE TABLE vector_heads (                     -- apart from spaces: whoever sends vectors never waits for, nor holds, who commits
    space_id    uuid PRIMARY KEY,
    head        bigint NOT NULL DEFAULT 0       -- the newest position of a vector; its lock puts them in commit order
) WITH (fillfactor = 50);

CREATE TABLE models (                           -- which vectors a space has: read before every search by meaning
    space_id    uuid NOT NULL,
    model       text COLLATE "C" NOT NULL,
    dimensions  integer NOT NULL,
    vectors     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (space_id, model)
) WITH (fillfactor = 50);

CREATE TABLE vectors (
    space_id    uuid NOT NULL,
    collection  text COLLATE "C" NOT NULL,
    record_id   text COLLATE "C" NOT NULL,
    part        integer NOT NULL,               -- -1: of the record itself; else the place of an item in its list
    model       text COLLATE "C" NOT NULL,
    dimensions  integer NOT NULL,
    hash        bytea NOT NULL,                 -- of the text that it stands for: the device's own
    scale       real NOT NULL,                  -- scale × vector has length 1; together they are the very bytes that came
    vector      halfvec NOT NULL,               -- whole numbers from -128 to 127, which halfvec holds exactly
    position    bigint NOT NULL,                -- of its last change, for devices that ask what is new
    PRIMARY KEY (space_id, collection, record_id, part, model),
    CHECK (vector_dims(vector) = dimensions)
);
ALTER TABLE vectors ALTER COLUMN vector SET STORAGE EXTERNAL;  -- whole numbers of 8 bits do not get smaller in time
CREATE INDEX vectors_by_position ON vectors (space_id, position);
-- Everything that exact search reads stands in the index, in the order of spaces. An index tuple ends at 2,704 bytes.
CREATE INDEX vectors_by_model ON vectors (space_id, model) INCLUDE (collection, record_id, part, vector)
    WHERE dimensions <= 1000;

-- Texts

CREATE TABLE texts (                            -- what of a document is for words to find, written with it
    space_id    uuid NOT NULL,
    collection  text COLLATE "C" NOT NULL,
    record_id   text COLLATE "C" NOT NULL,
    part        integer NOT NULL,               -- as of vectors
    body        text NOT NULL,
    words       tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('english'::regconfig, body)) STORED,
    PRIMARY KEY (space_id, collection, record_id, part)
);

-- Search leaves out deleted records by this: few, so it is small.
CREATE INDEX documents_deleted ON documents (space_id, collection, record_id) WHERE deleted;

-- The texts of what was folded before today come by folding it again: the log has all of it.
DELETE FROM documents;
DELETE FROM quarantine;
DELETE FROM materializations;
