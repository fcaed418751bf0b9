#!lua flags=allow-oom
-- Removes a profile, if it is still the one that was read.
--
-- KEYS[1] profile   ARGV[1] the profile that was read
-- Returns 1, or 0 when another one is there, or none.

-- include moved

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('UNLINK', KEYS[1])
