#!lua flags=allow-oom
-- Counts down the dead of a channel that an alert has told of. Never below 0: should two have told of the same
-- ones, the next must be told of all the same.
--
-- KEYS[1] unalerted hash   ARGV[1] channel   ARGV[2] how many

local counted = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
redis.call('HINCRBY', KEYS[1], ARGV[1], -math.max(0, math.min(counted, tonumber(ARGV[2]))))
