-- True while the DLQ's worker is trying this entry: pending, and its lease has not run out.
local function is_being_tried(stream, lease, group, id)
  local held_until = tonumber(redis.call('HGET', lease, 'until') or '0')
  if held_until <= server_ms() then
    return false
  end
  local pending = redis.pcall('XPENDING', stream, group, id, id, 1)
  return not pending.err and #pending > 0
end

-- A holder whose lease has run out loses the entry, and with it the lease: else it could renew the lease, and
-- route or deliver the entry as well. 1: the entry was there.
local function take_off(stream, lease, group, id)
  if redis.call('XACK', stream, group, id) == 1 then
    redis.call('HSET', lease, 'token', '')
  end
  return redis.call('XDEL', stream, id)
end
