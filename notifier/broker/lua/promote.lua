#!lua flags=allow-oom
-- Adds to their queues the scheduled entries whose time has come: a full server has no more for it.
--
-- KEYS[1] lease hash of the events queue   KEYS[2] scheduled zset   KEYS[3] scheduled items hash
-- ARGV[1] token   ARGV[2] entries at most
-- ARGV[3] the partition's prefix; an item's queue behind it is the stream, in the same slot
-- Returns {now, promoted, next due (ms, or -1)}, or the error FENCED.

-- include fence
-- include packed

if not owns(KEYS[1], ARGV[1]) then
  return redis.error_reply('FENCED')
end
local now = server_ms()
local numbers = redis.call('ZRANGE', KEYS[2], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[2])
for _, number in ipairs(numbers) do
  local item = redis.call('HGET', KEYS[3], number)
  if item then
    local strings = unpacked(item)
    redis.call('XADD', ARGV[3] .. strings[1], '*', unpack(strings, 2))
    redis.call('HDEL', KEYS[3], number)
  end
  redis.call('ZREM', KEYS[2], number)
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return {now, #numbers, first[2] and math.floor(first[2]) or -1}
