#!lua flags=allow-oom
-- Fixes the number of partitions and the wire version at the first start, and says what they are. It may
-- pass the memory limit: a worker that starts then is what frees memory.
--
-- KEYS[1] meta hash
-- ARGV[1] partitions   ARGV[2] wire version
-- Returns {partitions, wire version, layout or nil, the number that it is being changed to or nil}.

redis.call('HSETNX', KEYS[1], 'partitions', ARGV[1])
redis.call('HSETNX', KEYS[1], 'wire', ARGV[2])
return redis.call('HMGET', KEYS[1], 'partitions', 'wire', 'layout', 'changing')
