#!lua flags=allow-oom
-- Puts a mark on one entry.
--
-- KEYS[1] prefix of the inbox's keys
-- ARGV[1] id   ARGV[2] seen, read, unread, archived or unarchived
-- Returns the counts {unseen, seen but not read, read}, or nil when the id is unknown.

-- include moved
-- include fence
-- include inbox_changed
-- include inbox_mark
-- include inbox_counts

local changed = inbox_mark(KEYS[1], ARGV[1], ARGV[2], string.format('%d', server_ms()))
if changed == nil then
  return false
elseif changed then
  inbox_changed(KEYS[1], 'mark', ARGV[1])
end
return inbox_counts(KEYS[1])
