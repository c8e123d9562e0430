-- How the text of a cell becomes a value. The variables come from the mapping:
--   missing  list of texts that mean no value
--   dates    list of formats, tried in order, ISO last
--   decimal  the decimal sign
--   codes    column -> (text -> our code)
--   factors  column -> what its numbers are multiplied by
CREATE OR REPLACE MACRO text_of(v) AS
    CASE WHEN list_contains(getvariable('missing'), v) THEN NULL ELSE v END;

CREATE OR REPLACE MACRO date_of(v) AS
    CAST(try_strptime(text_of(v), getvariable('dates')) AS DATE);

CREATE OR REPLACE MACRO number_of(c, v) AS
    TRY_CAST(replace(text_of(v), getvariable('decimal'), '.') AS DOUBLE)
    * coalesce(getvariable('factors')[c], 1.0);

CREATE OR REPLACE MACRO code_of(c, v) AS
    CASE
        WHEN map_contains(getvariable('codes'), c) THEN getvariable('codes')[c][text_of(v)]
        ELSE text_of(v)
    END;

CREATE OR REPLACE MACRO yes_no_of(c, v) AS
    CASE code_of(c, v) WHEN '1' THEN CAST(1 AS TINYINT) WHEN '0' THEN CAST(0 AS TINYINT) END;

-- Codes of diseases and procedures without dots, dashes and blanks, in capitals.
CREATE OR REPLACE MACRO medical_code_of(v) AS
    nullif(upper(regexp_replace(text_of(v), '[^A-Za-z0-9]', '', 'g')), '');

-- What a person may see of a value that could not be used: its shape.
CREATE OR REPLACE MACRO shape_of(v) AS
    left(regexp_replace(regexp_replace(v, '\p{N}', '9', 'g'), '\p{L}', 'A', 'g'), 24);

CREATE OR REPLACE MACRO needed(c, value) AS
    CASE WHEN value IS NULL
        THEN {'column': c, 'reason': 'missing_value', 'shape': NULL::VARCHAR}
    END;

CREATE OR REPLACE MACRO parsed(c, v, value, reason) AS
    CASE WHEN value IS NULL AND text_of(v) IS NOT NULL
        THEN {'column': c, 'reason': reason, 'shape': shape_of(v)}
    END;

CREATE OR REPLACE MACRO ordered(c, fails, reason) AS
    CASE WHEN fails THEN {'column': c, 'reason': reason, 'shape': NULL::VARCHAR} END;

CREATE OR REPLACE MACRO only_problems(problems) AS
    list_filter(problems, lambda p: p IS NOT NULL);
