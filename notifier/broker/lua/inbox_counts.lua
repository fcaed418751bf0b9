#!lua flags=no-writes
-- Counts the entries that are not archived.
--
-- KEYS[1] prefix of the inbox's keys
-- Returns {unseen, seen but not read, read}.

-- include moved
-- include inbox_counts

return inbox_counts(KEYS[1])
