#!lua
-- Adds one entry to an inbox, exactly once.
--
-- KEYS[1] prefix of the inbox's keys
-- ARGV[1] id   ARGV[2] created (ms)   ARGV[3] entry, JSON   ARGV[4] entries to keep
-- Returns 1 (added) or 0 (known already).

-- include moved
-- include inbox_add

return inbox_add(KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]))
