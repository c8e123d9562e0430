-- Rows of a text file under the number of the line they stand on: the header and the lines that
-- could not be split come before them. (A quoted line feed makes later numbers too small.)
CREATE OR REPLACE VIEW numbered_rows AS
WITH shifts AS (
    SELECT unreadable_line - 1 - k AS rows_before, max(k) AS shift
    FROM (
        SELECT line AS unreadable_line, row_number() OVER (ORDER BY line) AS k FROM unreadable
    )
    GROUP BY ALL
)
SELECT file_rows.* REPLACE (file_rows.line + 1 + coalesce(shifts.shift, 0) AS line)
FROM file_rows
ASOF LEFT JOIN shifts ON file_rows.line > shifts.rows_before
