#!lua flags=allow-oom
-- Removes an inbox and all that was remembered of it, and tells whoever listens.
--
-- KEYS[1] prefix of the inbox's keys
-- ARGV what follows the prefix in the keys of entries
-- Returns how many keys there were.

-- include moved
-- include inbox_changed

local removed = 0
for _, part in ipairs(ARGV) do
  removed = removed + redis.call('UNLINK', KEYS[1] .. ':' .. part)
end
if removed > 0 then
  -- The stream stays, so that ids go on: who knows an earlier one sees that it is gone.
  inbox_changed(KEYS[1], 'gone', '')
  redis.call('XTRIM', KEYS[1] .. ':changes', 'MAXLEN', 1)
end
return removed
