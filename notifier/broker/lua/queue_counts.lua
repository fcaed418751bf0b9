#!lua flags=no-writes
-- Counts what lies in the queues of one partition.
--
-- KEYS[1] scheduled zset; then for each queue: stream, parked zset, DLQ stream, dead stream, lease hash,
--         lease hash of the DLQ
-- ARGV[1] group   ARGV[2] parked lanes to look into, at most   ARGV[3+] prefix of each queue's lanes
-- Returns {now (ms), scheduled, {entries, in hand, oldest id or '', parked lanes, messages in the lanes
-- looked into, DLQ, dead, owner's token or '', token of the DLQ's owner or '', entries ever added}, ...}.

-- include fence

local call, now = redis.call, server_ms()

local function live_token(lease)
  local held = call('HMGET', lease, 'token', 'until')
  return tonumber(held[2] or '0') > now and held[1] or ''
end

local function ever_added(stream)
  local info = redis.pcall('XINFO', 'STREAM', stream)
  for i = 1, info.err and 0 or #info, 2 do
    if info[i] == 'entries-added' then
      return info[i + 1]
    end
  end
  return 0
end

local counts = {now, call('ZCARD', KEYS[1])}
for i = 3, #ARGV do
  local at = 2 + (i - 3) * 6
  local pending = redis.pcall('XPENDING', KEYS[at], ARGV[1])
  local oldest = call('XRANGE', KEYS[at], '-', '+', 'COUNT', 1)[1]
  local messages = 0
  for _, lane in ipairs(call('ZRANGE', KEYS[at + 1], 0, ARGV[2] - 1)) do
    messages = messages + call('LLEN', ARGV[i] .. lane)
  end
  counts[#counts + 1] = {
    call('XLEN', KEYS[at]),
    pending.err and 0 or pending[1],
    oldest and oldest[1] or '',
    call('ZCARD', KEYS[at + 1]),
    messages,
    call('XLEN', KEYS[at + 2]),
    call('XLEN', KEYS[at + 3]),
    live_token(KEYS[at + 4]),
    live_token(KEYS[at + 5]),
    ever_added(KEYS[at]),
  }
end
return counts
