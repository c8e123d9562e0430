-- Conversion of cell text to values. The variables come from the mapping and the tables:
--   missing           list of texts that mean "no value"
--   dates_<column>    list of formats of a date column
--   zoned_<column>    formats that end with an offset from UTC, without that offset
--   iso_dates         whether ISO dates are accepted too
--   decimal           decimal separator
--   codes, folded     column -> (text -> canonical code); `folded` in lower case
--   allowed           column -> canonical codes
--   factors           column -> factor of its unit
--   code_words        common code words, which no one can be identified by, in lower case
--   ranges            column -> smallest and largest plausible number
-- The cells of the view `raw` have passed through `text_of`.
CREATE OR REPLACE MACRO text_of(v) AS
    CASE WHEN list_contains(getvariable('missing'), v) THEN NULL ELSE v END;

-- The calendar date as written; time and offset are ignored.
CREATE OR REPLACE MACRO iso_date_of(t) AS
    CASE WHEN getvariable('iso_dates') AND regexp_full_match(
        t,
        '\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?\s*(Z|UTC|[+-]\d{2}(:?\d{2})?)?)?'
    ) THEN TRY_CAST(left(t, 10) AS DATE) END;

CREATE OR REPLACE MACRO without_offset(t) AS
    regexp_replace(t, '\s*(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$', '');

-- Dates before 1880 are errors, and 9999-12-31 and similar values are placeholders. (The list of one
-- value keeps the argument's text from being repeated in the query.)
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

-- Text with another separator is not a number: it could separate thousands.
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

-- Codes of the mapping: exact, then ignoring case where that is unambiguous. Without codes in the
-- mapping, the canonical codes.
CREATE OR REPLACE MACRO code_of(c, v) AS
    CASE
        WHEN map_contains(getvariable('codes'), c) THEN coalesce(
            getvariable('codes')[c][v], getvariable('folded')[c][lower(v)]
        )
        ELSE list_filter(getvariable('allowed')[c], lambda a: lower(a) = lower(v))[1]
    END;

CREATE OR REPLACE MACRO yes_no_of(c, v) AS
    CASE code_of(c, v) WHEN '1' THEN CAST(1 AS TINYINT) WHEN '0' THEN CAST(0 AS TINYINT) END;

-- A type that the mapping does not translate is kept in upper case; if no rule names it, the linkage
-- lists it as unknown.
CREATE OR REPLACE MACRO type_of(c, v) AS
    upper(coalesce(
        getvariable('codes')[c][v],
        getvariable('folded')[c][lower(v)],
        v
    ));

-- Diagnosis and procedure codes in upper case, without the name of the code system, dots, dashes and
-- blanks.
CREATE OR REPLACE MACRO medical_code_of(v) AS
    nullif(
        regexp_replace(
            regexp_replace(
                upper(v),
                concat(
                    '^\s*((HTTPS?://HL7\.ORG/FHIR/SID/)?ICD[-_ ]?10([-_ ]?(WHO|CM|CA|GM|AM|PCS))?',
                    '([-_ ]?20\d\d)?|ICD[-_ ]?9([-_ ]?CM)?|CCI|OPCS[-_ ]?4(\.\d+)?|OPS',
                    '([-_ ]?20\d\d)?|CPT([-_ ]?4)?|NOMESCO|NCSP)[-_:|/^=\s]+'
                ),
                ''
            ),
            '[^A-Z0-9]', '', 'g'
        ),
        ''
    );

-- Shape of a value that could not be used: it reveals no identifier.
CREATE OR REPLACE MACRO shape_of(v) AS
    left(regexp_replace(regexp_replace(v, '\p{N}', '9', 'g'), '\p{L}', 'A', 'g'), 24);

-- Of a cell that holds a code: common code words, and texts of one or two characters, as they are.
CREATE OR REPLACE MACRO coded_shape_of(v) AS
    CASE WHEN list_contains(getvariable('code_words'), lower(v)) OR length(v) <= 2 THEN v
        ELSE shape_of(v)
    END;

CREATE OR REPLACE MACRO fault_shape_of(v, reason) AS
    CASE WHEN reason = 'unmapped_code' THEN coded_shape_of(v) ELSE shape_of(v) END;

-- Faults. With `costs_row`, the row is unusable without the value; otherwise only the cell becomes
-- null.
CREATE OR REPLACE MACRO fault(c, why, form, costs) AS
    {'column': c, 'reason': why, 'shape': form, 'costs_row': costs};

CREATE OR REPLACE MACRO needed(c, value) AS
    CASE WHEN value IS NULL THEN fault(c, 'missing_value', NULL::VARCHAR, true) END;

CREATE OR REPLACE MACRO needed_of(c, v, value, reason) AS
    CASE
        WHEN value IS NOT NULL THEN NULL
        WHEN v IS NULL THEN fault(c, 'missing_value', NULL::VARCHAR, true)
        ELSE fault(c, reason, fault_shape_of(v, reason), true)
    END;

CREATE OR REPLACE MACRO parsed(c, v, value, reason) AS
    CASE WHEN value IS NULL AND v IS NOT NULL
        THEN fault(c, reason, fault_shape_of(v, reason), false)
    END;

CREATE OR REPLACE MACRO measured(c, v, value) AS
    parsed(
        c, v, value,
        CASE WHEN any_number_of(c, v) IS NULL THEN 'unparsed_number' ELSE 'out_of_range' END
    );

-- A value computed from other cells.
CREATE OR REPLACE MACRO computed(c, x) AS
    CASE WHEN x IS NOT NULL AND plausible(c, x) IS NULL
        THEN fault(c, 'out_of_range', NULL::VARCHAR, false)
    END;

CREATE OR REPLACE MACRO ordered(c, fails, reason) AS
    CASE WHEN fails THEN fault(c, reason, NULL::VARCHAR, true) END;

CREATE OR REPLACE MACRO only_problems(problems) AS
    list_filter(problems, lambda p: p IS NOT NULL);
