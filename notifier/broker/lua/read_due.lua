#!lua flags=allow-oom
-- Reads new entries that have waited long enough, oldest first.
--
-- KEYS[1] lease hash   KEYS[2] stream
-- ARGV[1] token        ARGV[2] group   ARGV[3] consumer
-- ARGV[4] how long they must have waited (ms)   ARGV[5] entries at most
-- Returns {{id, fields}, ...}, or the error FENCED.

-- include fence

if not owns(KEYS[1], ARGV[1]) then
  return redis.error_reply('FENCED')
end
local delivered = '-'
for _, found in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
  local info = {}
  for i = 1, #found, 2 do
    info[found[i]] = found[i + 1]
  end
  if info.name == ARGV[2] then
    delivered = '(' .. info['last-delivered-id']
  end
end
local waited = string.format('%d', server_ms() - ARGV[4])
local due = #redis.call('XRANGE', KEYS[2], delivered, waited, 'COUNT', ARGV[5])
if due == 0 then
  return {}
end
local read = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', due, 'STREAMS', KEYS[2], '>')
return read and read[1][2] or {}
