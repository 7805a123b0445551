-- How a space is ranked as a device is: who said what, words of every script, and all of a vector where small spaces
-- are compared.

-- A question that names somebody prefers what they said.

ALTER TABLE texts ADD COLUMN speaker text;      -- null: nobody is named

-- Case, accents and the runs of scripts without spaces are one thing to a person: what is indexed of such a text.

ALTER TABLE texts ADD COLUMN folded text;       -- null: the body as it is
ALTER TABLE texts DROP COLUMN words;
ALTER TABLE texts ADD COLUMN words tsvector NOT NULL
    GENERATED ALWAYS AS (to_tsvector('english'::regconfig, coalesce(folded, body))) STORED;

-- Who said what was folded before today, and in which script, comes by folding it again. Where nobody is named and all
-- is ASCII there is nothing to be told: those spaces stand as they are, and so do all vectors.
CREATE TEMPORARY TABLE spoken ON COMMIT DROP AS
    SELECT space_id FROM documents WHERE value IS NULL OR jsonb_path_exists(value, '$.**.speaker')
    UNION SELECT space_id FROM texts WHERE body ~ '[^[:ascii:]]';
DELETE FROM texts USING spoken WHERE texts.space_id = spoken.space_id;
DELETE FROM quarantine USING spoken WHERE quarantine.space_id = spoken.space_id;
DELETE FROM materializations USING spoken WHERE materializations.space_id = spoken.space_id;
DELETE FROM documents USING spoken WHERE documents.space_id = spoken.space_id;

-- Until today the vectors of deleted records stayed.
WITH gone AS (
    DELETE FROM vectors USING documents
    WHERE documents.space_id = vectors.space_id AND documents.collection = vectors.collection
      AND documents.record_id = vectors.record_id AND documents.deleted
    RETURNING vectors.space_id, vectors.model
), counted AS (
    SELECT space_id, model, count(*) AS vectors FROM gone GROUP BY space_id, model
)
UPDATE models SET vectors = models.vectors - counted.vectors FROM counted
WHERE models.space_id = counted.space_id AND models.model = counted.model;
DELETE FROM models WHERE vectors <= 0;

-- A part is ranked with the vectors beside it, at their true lengths: the scale stands beside the components.
DROP INDEX vectors_by_model;
CREATE INDEX vectors_by_model ON vectors (space_id, model) INCLUDE (collection, record_id, part, scale, vector)
    WHERE dimensions <= 1000;
