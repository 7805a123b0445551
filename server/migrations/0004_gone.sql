-- Vectors go after the fold that takes their text away, in transactions of their own: until then they stand here.

CREATE TABLE vectors_gone (                     -- listed in the transaction that folds a record deleted, or a part without text
    space_id    uuid NOT NULL,
    collection  text COLLATE "C" NOT NULL,
    record_id   text COLLATE "C" NOT NULL,
    part        integer NOT NULL,               -- as of vectors; -2: all of the record
    PRIMARY KEY (space_id, collection, record_id, part)
);
