#!lua flags=allow-oom
-- The router's step for a server that has refused it at its memory limit: goes beyond that by a tenth, and no
-- further. Three deliveries take more than their event, and give it all back once they are made; without
-- this, a server full of events would stay full.

local memory = redis.call('INFO', 'memory')
local used = tonumber(string.match(memory, 'used_memory:(%d+)'))
local limit = tonumber(string.match(memory, 'maxmemory:(%d+)'))
if limit > 0 and used > 1.1 * limit then
  return redis.error_reply('OOM more than a tenth above maxmemory')
end

-- include route
