#!lua flags=allow-oom
-- Goes on being the one that changes the number of partitions.
--
-- KEYS[1] the key that says who is   ARGV[1] token   ARGV[2] for how long (ms)
-- Returns 1, or 0 when somebody else is, or nobody.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
