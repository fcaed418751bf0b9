-- True while the DLQ's worker is trying this entry: pending, and its lease has not run out. A holder whose
-- lease has run out loses the entry, and what it commits later for it comes to nothing.
local function is_being_tried(stream, lease, group, id)
  local held_until = tonumber(redis.call('HGET', lease, 'until') or '0')
  if held_until <= server_ms() then
    return false
  end
  local pending = redis.pcall('XPENDING', stream, group, id, id, 1)
  return not pending.err and #pending > 0
end

local function take_off(stream, group, id)
  redis.call('XACK', stream, group, id)
  return redis.call('XDEL', stream, id)
end
