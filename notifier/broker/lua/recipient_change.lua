#!lua
-- Puts a profile in the place of the one that was read, if that one is still there. Without flags the
-- server refuses it at its memory limit.
--
-- KEYS[1] profile   ARGV[1] the profile that was read, empty for none   ARGV[2] the new one
-- Returns 1, or 0 when another one is there.

-- include moved

if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
