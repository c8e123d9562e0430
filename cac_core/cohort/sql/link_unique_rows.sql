-- One row per {key} of `{table}`. Rows that do not contradict each other are merged, so that they
-- fill each other's gaps. If they contradict each other, none of them is used.
CREATE TABLE {table}_keyed AS
SELECT patient_keys.patient_key, {table}.*
FROM {table} JOIN patient_keys USING (patient_id);

CREATE TABLE {table}_conflicts AS
SELECT {key}
FROM {table}_keyed
GROUP BY {key}
HAVING {differs};

INSERT INTO quarantined
SELECT '{table}', part, source_file, source_line, NULL, 'conflicting_rows'
FROM {table}_keyed SEMI JOIN {table}_conflicts USING ({key});

CREATE TABLE {table}_rows AS
SELECT DISTINCT ON ({key}) * REPLACE ({merged})
FROM {table}_keyed ANTI JOIN {table}_conflicts USING ({key})
ORDER BY {key}, source_file, source_line, part;
