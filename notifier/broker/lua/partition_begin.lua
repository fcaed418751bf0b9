#!lua
-- Writes down that the number of partitions is being changed; from now on nobody else starts. Not when it is
-- another one by now than the caller has read: whoever was quicker has changed it, and nobody would end this.
--
-- KEYS[1] meta hash   ARGV[1] the next number   ARGV[2] the number, ARGV[3] the layout, as the caller has read them
-- Returns {partitions, layout, the next number}: the latter is another one when that change has begun before;
-- or nil, when nothing was ever started here.

local now = redis.call('HMGET', KEYS[1], 'partitions', 'layout')
if not now[1] then
  return false
end
local layout = now[2] or '1'
if now[1] == ARGV[2] and layout == ARGV[3] then
  redis.call('HSETNX', KEYS[1], 'changing', ARGV[1])
end
return {now[1], layout, redis.call('HGET', KEYS[1], 'changing')}
