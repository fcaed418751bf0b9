#!lua flags=allow-oom
-- Prolongs a lease, and looks at what its owner must see to.
--
-- KEYS[1] lease hash   KEYS[2] stream   KEYS[3] zset of due times (parked, or scheduled)
-- ARGV[1] token        ARGV[2] TTL (ms) ARGV[3] group   ARGV[4] consumer
-- Returns {now (ms), recover, waiting in the zset, next due (ms, or -1), oldest pending id or ''}; recover
-- is 1 when entries are pending with another consumer, or the group was gone and is made anew. The error
-- FENCED says that the lease went to somebody else.

-- include fence

if not owns(KEYS[1], ARGV[1]) then
  return redis.error_reply('FENCED')
end
local now = server_ms()
redis.call('HSET', KEYS[1], 'until', now + ARGV[2])

local recover = 0
local pending = redis.pcall('XPENDING', KEYS[2], ARGV[3])
if pending.err then
  redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[3], '0', 'MKSTREAM')
  recover = 1
elseif pending[4] then
  for _, consumer in ipairs(pending[4]) do
    if consumer[1] ~= ARGV[4] then
      recover = 1
    end
  end
end

local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local next_due = first[2] and math.floor(first[2]) or -1
return {now, recover, redis.call('ZCARD', KEYS[3]), next_due, not pending.err and pending[2] or ''}
