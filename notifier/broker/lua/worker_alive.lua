#!lua flags=allow-oom
-- Notes that a worker is alive, and drops those that have not said so for their TTL.
--
-- KEYS[1] zset of a queue's workers
-- ARGV[1] worker   ARGV[2] TTL (ms)
-- Returns how many workers are alive, this one included.

-- include fence

local now = server_ms()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 1)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return redis.call('ZCARD', KEYS[1])
