#!lua flags=allow-oom
-- Ends a lease at once. What is still pending was never tried: that we read it is not counted, so that
-- a clean stop does not look like an owner that died over it. What we claimed from another was not tried by
-- us either, but perhaps by that one, which recover.lua has counted.
--
-- KEYS[1] lease hash   KEYS[2] stream
-- ARGV[1] token        ARGV[2] group   ARGV[3] consumer
-- Returns how many entries the next owner will find pending, or the error FENCED.

-- include fence
-- include remove_empty_consumers

if not owns(KEYS[1], ARGV[1]) then
  return redis.error_reply('FENCED')
end
redis.call('HSET', KEYS[1], 'until', 0, 'token', '')

local left = 0
local pending = redis.pcall('XPENDING', KEYS[2], ARGV[2], '-', '+', 100000, ARGV[3])
if not pending.err then
  left = #pending
  local claimed = redis.call('HGET', KEYS[1], 'claimed') or '0'
  for _, entry in ipairs(redis.call('XPENDING', KEYS[2], ARGV[2], '(' .. claimed, '+', 100000, ARGV[3])) do
    if entry[4] == 1 then
      redis.call('XCLAIM', KEYS[2], ARGV[2], ARGV[3], 0, entry[1], 'RETRYCOUNT', 0, 'JUSTID')
    end
  end
  remove_empty_consumers(KEYS[2], ARGV[2], '')
end
return left
