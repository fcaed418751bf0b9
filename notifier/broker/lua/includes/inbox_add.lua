-- include inbox_changed

-- Adds an unseen entry to the inbox whose keys begin with `prefix`; `notifier.inbox` has the schema.
-- 1: added. 0: the id is stored already, or is among the last `limit` ids that fell out.
-- Beyond `limit` entries the oldest fall out, at most 100 a call, so that a limit that was lowered
-- does not hold up the server; among those of one millisecond, first what was archived or read.
local function inbox_add(prefix, id, created_ms, json, limit)
  local entries, states, gone = prefix .. ':entries', prefix .. ':states', prefix .. ':gone'
  if redis.call('ZSCORE', gone, id) or redis.call('HSETNX', entries, id, json) == 0 then
    return 0
  end
  redis.call('HSET', states, id, string.format('%d 0 0 0', created_ms))
  redis.call('ZADD', prefix .. ':unseen', 0, string.format('%015d', created_ms) .. id)

  for _ = 1, math.min(100, redis.call('HLEN', entries) - limit) do
    local oldest, home, oldest_ms
    for _, set in ipairs({'archived_read', 'archived_seen', 'archived_unseen', 'read', 'seen', 'unseen'}) do
      local first = redis.call('ZRANGE', prefix .. ':' .. set, 0, 0)[1]
      local first_ms = first and tonumber(string.sub(first, 1, 15))
      if first and (not oldest or first_ms < oldest_ms) then
        oldest, home, oldest_ms = first, prefix .. ':' .. set, first_ms
      end
    end
    local out = string.sub(oldest, 16)
    redis.call('ZREM', home, oldest)
    redis.call('HDEL', entries, out)
    redis.call('HDEL', states, out)
    local last = redis.call('ZRANGE', gone, -1, -1, 'WITHSCORES')[2] or 0
    redis.call('ZADD', gone, last + 1, out)
    redis.call('ZREMRANGEBYRANK', gone, 0, -limit - 1)
  end
  inbox_changed(prefix, 'add', id)
  return 1
end
