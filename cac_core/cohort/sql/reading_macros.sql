-- How the text of a cell becomes a value. The variables come from the mapping and the tables:
--   missing           list of texts that mean no value
--   dates_<column>    list of formats of a column of dates
--   zoned_<column>    the same for formats that end with an offset from UTC, without the offset
--   iso_dates         whether ISO dates are understood beside them
--   decimal           the decimal sign
--   codes, folded     column -> (text -> our code); `folded` in small letters
--   allowed           column -> our codes
--   factors           column -> what its numbers are multiplied by
--   ranges            column -> least and greatest plausible number
-- The view `raw` has its cells as this gives them.
CREATE OR REPLACE MACRO text_of(v) AS
    CASE WHEN list_contains(getvariable('missing'), v) THEN NULL ELSE v END;

-- The calendar date as it is written, whatever the time and the offset beside it.
CREATE OR REPLACE MACRO iso_date_of(t) AS
    CASE WHEN getvariable('iso_dates') AND regexp_full_match(
        t,
        '\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?\s*(Z|UTC|[+-]\d{2}(:?\d{2})?)?)?'
    ) THEN TRY_CAST(left(t, 10) AS DATE) END;

CREATE OR REPLACE MACRO without_offset(t) AS
    regexp_replace(t, '\s*(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$', '');

-- No date of a patient or a registry is older than 1880; 9999-12-31 and the like are no dates.
-- (A list of one value, so that the text of what is checked is in the query once.)
CREATE OR REPLACE MACRO plausible_date(d) AS
    list_filter([d], lambda x: x BETWEEN DATE '1880-01-01' AND DATE '2199-12-31')[1];

CREATE OR REPLACE MACRO date_of(c, v) AS
    plausible_date(coalesce(
        CAST(try_strptime(v, getvariable(concat('dates_', c))) AS DATE),
        CAST(try_strptime(
            without_offset(v), getvariable(concat('zoned_', c))
        ) AS DATE),
        iso_date_of(v)
    ));

-- Another sign than the decimal one makes no number: it could divide thousands.
CREATE OR REPLACE MACRO any_number_of(c, v) AS
    CASE WHEN regexp_full_match(
        v,
        CASE getvariable('decimal')
            WHEN ',' THEN '[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?'
            ELSE '[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?'
        END
    ) THEN
        coalesce(
            TRY_CAST(replace(v, getvariable('decimal'), '.') AS DOUBLE),
            CAST('inf' AS DOUBLE)
        ) * coalesce(getvariable('factors')[c], 1.0)
    END;

CREATE OR REPLACE MACRO plausible(c, n) AS
    list_filter([n], lambda x: isfinite(x)
        AND x BETWEEN getvariable('ranges')[c][1] AND getvariable('ranges')[c][2])[1];

CREATE OR REPLACE MACRO number_of(c, v) AS
    plausible(c, any_number_of(c, v));

-- Codes of the mapping as they are written there, then without regard to small letters where that
-- leaves no doubt; without codes in the mapping ours.
CREATE OR REPLACE MACRO code_of(c, v) AS
    CASE
        WHEN map_contains(getvariable('codes'), c) THEN coalesce(
            getvariable('codes')[c][v], getvariable('folded')[c][lower(v)]
        )
        ELSE list_filter(getvariable('allowed')[c], lambda a: lower(a) = lower(v))[1]
    END;

CREATE OR REPLACE MACRO yes_no_of(c, v) AS
    CASE code_of(c, v) WHEN '1' THEN CAST(1 AS TINYINT) WHEN '0' THEN CAST(0 AS TINYINT) END;

-- A type that the mapping does not translate stays, in capitals: it is none that a rule names, and
-- the linkage lists it.
CREATE OR REPLACE MACRO type_of(c, v) AS
    upper(coalesce(
        getvariable('codes')[c][v],
        getvariable('folded')[c][lower(v)],
        v
    ));

-- Codes of diseases and procedures without the name of their system, dots, dashes and blanks, in
-- capitals.
CREATE OR REPLACE MACRO medical_code_of(v) AS
    nullif(
        regexp_replace(
            regexp_replace(
                upper(v),
                concat(
                    '^\s*((HTTPS?://HL7\.ORG/FHIR/SID/)?ICD[-_ ]?10([-_ ]?(WHO|CM|CA|GM|AM|PCS))?',
                    '([-_ ]?20\d\d)?|CCI|OPCS[-_ ]?4(\.\d+)?)[-_:|/^=\s]+'
                ),
                ''
            ),
            '[^A-Z0-9]', '', 'g'
        ),
        ''
    );

-- What a person may see of a value that could not be used: its shape.
CREATE OR REPLACE MACRO shape_of(v) AS
    left(regexp_replace(regexp_replace(v, '\p{N}', '9', 'g'), '\p{L}', 'A', 'g'), 24);

-- Faults. `costs_row`: without the value the row is of no use; otherwise the cell is empty and the
-- row stays.
CREATE OR REPLACE MACRO fault(c, why, form, costs) AS
    {'column': c, 'reason': why, 'shape': form, 'costs_row': costs};

CREATE OR REPLACE MACRO needed(c, value) AS
    CASE WHEN value IS NULL THEN fault(c, 'missing_value', NULL::VARCHAR, true) END;

CREATE OR REPLACE MACRO needed_of(c, v, value, reason) AS
    CASE
        WHEN value IS NOT NULL THEN NULL
        WHEN v IS NULL THEN fault(c, 'missing_value', NULL::VARCHAR, true)
        ELSE fault(c, reason, shape_of(v), true)
    END;

CREATE OR REPLACE MACRO parsed(c, v, value, reason) AS
    CASE WHEN value IS NULL AND v IS NOT NULL
        THEN fault(c, reason, shape_of(v), false)
    END;

CREATE OR REPLACE MACRO measured(c, v, value) AS
    parsed(
        c, v, value,
        CASE WHEN any_number_of(c, v) IS NULL THEN 'unparsed_number' ELSE 'out_of_range' END
    );

-- A value that was computed from others.
CREATE OR REPLACE MACRO computed(c, x) AS
    CASE WHEN x IS NOT NULL AND plausible(c, x) IS NULL
        THEN fault(c, 'out_of_range', NULL::VARCHAR, false)
    END;

CREATE OR REPLACE MACRO ordered(c, fails, reason) AS
    CASE WHEN fails THEN fault(c, reason, NULL::VARCHAR, true) END;

CREATE OR REPLACE MACRO only_problems(problems) AS
    list_filter(problems, lambda p: p IS NOT NULL);
