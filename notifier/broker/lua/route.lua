#!lua
-- Fans events of one partition out to the channels' queues and takes them off the events queue, if the
-- lease is still the router's. An event that is not pending is passed over: it was routed before, so a
-- call whose answer was lost may be sent again; or the group was made anew, and it will be read again.
-- Without flags the server refuses the whole script at its memory limit.
--
-- KEYS[1] lease hash   KEYS[2] events stream   KEYS[3] suppressed hash   KEYS[4+] channel streams
-- ARGV[1] token   ARGV[2] group   ARGV[3] number of channels, then their names
-- then for each event: entry id, deliveries; and when there are any:
--   event id, type, event, recipient id, to, accepted (ms), expires (ms or empty), and for each
--   delivery: channel (1-based), address key, address
-- Returns the suppressed ones as {entry id, channel name, address key, ...}, or the error FENCED.

-- include fence

if not owns(KEYS[1], ARGV[1]) then
  return redis.error_reply('FENCED')
end
local call = redis.call
local source, group = KEYS[2], ARGV[2]
local channels = tonumber(ARGV[3])
local suppressions = call('EXISTS', KEYS[3]) == 1
local skipped, done = {}, {}
local at, last = 4 + channels, #ARGV

while at <= last do
  local entry, deliveries = ARGV[at], tonumber(ARGV[at + 1])
  local fresh = call('XACK', source, group, entry) == 1
  if fresh then
    done[#done + 1] = entry
  end
  at = at + 2
  if deliveries > 0 then
    local id, kind, event, recipient, to, accepted, expires =
      ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
    at = at + 7
    for _ = 1, deliveries do
      local channel, key = tonumber(ARGV[at]), ARGV[at + 1]
      if fresh then
        if suppressions
          and call('HEXISTS', KEYS[3], ARGV[3 + channel] .. ':' .. recipient .. '/' .. key) == 1 then
          skipped[#skipped + 1] = entry
          skipped[#skipped + 1] = ARGV[3 + channel]
          skipped[#skipped + 1] = key
        else
          call('XADD', KEYS[3 + channel], '*', 'v', '1', 'id', id, 'type', kind, 'event', event,
            'rid', recipient, 'to', to, 'key', key, 'address', ARGV[at + 2],
            'at', accepted, 'exp', expires)
        end
      end
      at = at + 3
    end
  end
end
for first = 1, #done, 4000 do  -- a call takes no more than about 8,000 words
  call('XDEL', source, unpack(done, first, math.min(first + 3999, #done)))
end
return skipped
