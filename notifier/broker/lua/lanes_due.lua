#!lua flags=allow-oom
-- Hands out parked lanes whose time has come, and holds them back while they are worked on.
--
-- KEYS[1] lease hash   KEYS[2] parked zset   KEYS[3] retries hash
-- ARGV[1] token        ARGV[2] lanes at most ARGV[3] items of each at most
-- ARGV[4] hold (ms): when to hand a lane out again if nothing comes of it
-- ARGV[5] prefix of the lanes' keys
-- Returns {now, next due (ms, or -1), {{lane, owners, items waiting, item, ...}, ...}}, or the error
-- FENCED. `owners` counts the owners that have had the head of this lane, this one included; from the
-- second on mark.lua writes it down, before the head is tried.

-- include fence

if not owns(KEYS[1], ARGV[1]) then
  return redis.error_reply('FENCED')
end
local now = server_ms()
local lanes = {}
for _, lane in ipairs(redis.call('ZRANGE', KEYS[2], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[2])) do
  local key = ARGV[5] .. lane
  local waiting = redis.call('LLEN', key)
  if waiting == 0 then
    redis.call('ZREM', KEYS[2], lane)
  else
    local before = redis.call('HGET', KEYS[3], lane)
    local owners = 1
    if before then
      local counted, token = string.match(before, '^(%d+) (.*)$')
      owners = token == ARGV[1] and counted or counted + 1
    else
      redis.call('HSET', KEYS[3], lane, '1 ' .. ARGV[1])
    end
    redis.call('ZADD', KEYS[2], now + ARGV[4], lane)
    local row = redis.call('LRANGE', key, 0, ARGV[3] - 1)
    table.insert(row, 1, waiting)
    table.insert(row, 1, tonumber(owners))
    table.insert(row, 1, lane)
    lanes[#lanes + 1] = row
  end
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return {now, first[2] and math.floor(first[2]) or -1, lanes}
