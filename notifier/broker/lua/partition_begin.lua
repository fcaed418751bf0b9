#!lua
-- Writes down that the number of partitions is being changed; from now on nobody else starts.
--
-- KEYS[1] meta hash   ARGV[1] the next number
-- Returns {partitions, layout, the next number}: the latter is another one when that change has begun before;
-- or nil, when nothing was ever started here.

local partitions = redis.call('HGET', KEYS[1], 'partitions')
if not partitions then
  return false
end
redis.call('HSETNX', KEYS[1], 'changing', ARGV[1])
local now = redis.call('HMGET', KEYS[1], 'layout', 'changing')
return {partitions, now[1] or '1', now[2]}
