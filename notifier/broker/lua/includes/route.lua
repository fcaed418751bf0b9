-- Fans events of one partition out to the channels' queues and takes them off the events queue, if the
-- lease is still the router's. The owner counts its steps; one that was done before is passed over, so a
-- call whose answer was lost may be sent again.
--
-- KEYS[1] lease hash   KEYS[2] events stream   KEYS[3] suppressed hash   KEYS[4+] channel streams
-- ARGV[1] token   ARGV[2] group   ARGV[3] step
-- ARGV[4] number of channels, then their names
-- then the number of entries, and their ids
-- then four words about traces, see includes/trace.lua; all are empty when there are none
-- then for each event that is delivered: event, the channels of its deliveries (1-based, with blanks between
--   them; with a semicolon and a traceparent behind them, if there is one), and the head of each delivery
-- Returns the suppressed ones as {channel, head, ...}, or the error FENCED.

-- include fence
-- include trace

if not owns(KEYS[1], ARGV[1]) then
  return redis.error_reply('FENCED')
end
local call = redis.call
if tonumber(call('HGET', KEYS[1], 'step') or '0') >= tonumber(ARGV[3]) then
  return {}
end

local channels = tonumber(ARGV[4])
local suppressions = call('EXISTS', KEYS[3]) == 1
local function is_suppressed(channel, head)
  -- The lines are: version, id, type, recipient, to, address key, ...
  local recipient, key = string.match(head, '^[^\n]*\n[^\n]*\n[^\n]*\n([^\n]*)\n[^\n]*\n([^\n]*)')
  return call('HEXISTS', KEYS[3], channel .. ':' .. recipient .. '/' .. key) == 1
end

local ids = 5 + channels
local at, last = ids + tonumber(ARGV[ids]) + 1, #ARGV
local traces, field, lines, expires_at = unpack(ARGV, at, at + 3)
at = at + 4
local function suppressed_line(channel, head)
  local id, recipient, key = string.match(head, '^[^\n]*\n([^\n]*)\n[^\n]*\n([^\n]*)\n[^\n]*\n([^\n]*)')
  local now = string.format('%.0f', server_ms())
  key = string.gsub(key, '^.*@', '…@')  -- as notifier.traces shows a mailbox
  return table.concat({id, recipient, now, 'skipped', channel .. '/' .. key, '', '', 'suppressed', '\n'}, '\t')
end

local plans = {}  -- by their words, of which there are few
local function planned(word)
  local plan = {}
  local numbers, parent = string.match(word, '^([%d ]+);?(.*)$')
  for number in string.gmatch(numbers, '%d+') do
    plan[#plan + 1] = tonumber(number)
  end
  if parent == '' then
    plans[word] = plan
  else
    plan.parent = parent
  end
  return plan
end

local skipped = {}
while at <= last do
  local event, word = ARGV[at], ARGV[at + 1]
  local plan = plans[word] or planned(word)
  at = at + 2
  for i = 1, #plan do
    local channel, head = plan[i], ARGV[at]
    at = at + 1
    if suppressions and is_suppressed(ARGV[4 + channel], head) then
      skipped[#skipped + 1] = ARGV[4 + channel]
      skipped[#skipped + 1] = head
      lines = lines .. suppressed_line(ARGV[4 + channel], head)
    elseif plan.parent then
      call('XADD', KEYS[3 + channel], '*', 'head', head, 'event', event, 'trace', plan.parent)
    else
      call('XADD', KEYS[3 + channel], '*', 'head', head, 'event', event)
    end
  end
end

if traces ~= '' then
  trace(traces, field, lines, expires_at)
end
local first, count = ids + 1, tonumber(ARGV[ids])
for i = first, first + count - 1, 4000 do  -- a call takes no more than about 8,000 words
  local stop = math.min(i + 3999, first + count - 1)
  call('XACK', KEYS[2], ARGV[2], unpack(ARGV, i, stop))
  call('XDEL', KEYS[2], unpack(ARGV, i, stop))
end
call('HSET', KEYS[1], 'step', ARGV[3])
return skipped
