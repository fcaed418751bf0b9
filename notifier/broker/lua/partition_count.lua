#!lua
-- Adds the counts of a partition of another layout, once.
--
-- KEYS[1] hash of counts   KEYS[2] taken, a hash
-- ARGV[1] name of the source   ARGV[2+] field, count, ...
-- Returns 1, or 0 when they had been added before.

if redis.call('HSETNX', KEYS[2], ARGV[1], '1') == 0 then
  return 0
end
for i = 2, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
return 1
