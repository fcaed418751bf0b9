#!lua flags=allow-oom
-- Takes the lease of one queue of one partition when nobody holds it, or when the worker itself does,
-- which only asks for what it does not know to be its own: the answer was lost, or it gave the lease up.
--
-- KEYS[1] lease hash   KEYS[2] stream
-- ARGV[1] worker       ARGV[2] TTL (ms)   ARGV[3] group
-- Returns the token worker#epoch, or nil when another worker holds the lease.

-- include moved
-- include fence
-- include remove_empty_consumers

local now = server_ms()
local held_until = tonumber(redis.call('HGET', KEYS[1], 'until') or '0')
if held_until > now then
  local held_by = redis.call('HGET', KEYS[1], 'token') or ''
  if string.sub(held_by, 1, #ARGV[1] + 1) ~= ARGV[1] .. '#' then
    return false
  end
end
local token = ARGV[1] .. '#' .. redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'token', token, 'until', now + ARGV[2], 'step', 0)

-- The group begins at 0: what was added before any worker existed counts too.
local created = redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[3], '0', 'MKSTREAM')
if created.err and not string.find(created.err, 'BUSYGROUP', 1, true) then
  return created
end
remove_empty_consumers(KEYS[2], ARGV[3], ARGV[1])
return token
