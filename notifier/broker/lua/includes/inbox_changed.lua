-- Seconds for which the last changes of an inbox are kept after the latest of them.
local changes_kept = 86400

-- Writes down a change of an inbox, and wakes whoever listens; `notifier.inbox` has the schema. What follows
-- the prefix are pairs: what happened, and to which entry.
local function inbox_changed(prefix, ...)
  local changes = prefix .. ':changes'
  local position = redis.call('XADD', changes, 'MAXLEN', '~', 200, '*', ...)
  redis.call('EXPIRE', changes, changes_kept)
  -- Not `call`: a user of the server may lack the right to the channel, and then listeners find out later.
  redis.pcall('SPUBLISH', changes, position)
end
