#!lua
-- Adds events to the queue of one partition, each at most once within the dedup window.
-- Without flags the server refuses the whole script when it is at its memory limit, so nothing is half
-- done.
--
-- KEYS[1]  events stream
-- KEYS[2]  scheduled zset
-- KEYS[3]  scheduled items hash
-- KEYS[4+] seen key of each event
-- ARGV[1]  backlog limit (entries; 0: none)
-- ARGV[2]  dedup window (ms; 0: none)
-- ARGV[3+] for each event: due (ms, or empty for now), recipient id, v, to, event
--          behind them, if any has one: the traceparent of each, or nothing, with line feeds between
-- Returns for each event 1 (accepted) or 0 (duplicate); or {-1, waiting} when the queue is at its limit,
-- and then nothing has changed.

-- include moved
-- include fence
-- include schedule

local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
if limit > 0 then
  local waiting = redis.call('XLEN', KEYS[1])
  if waiting >= limit then
    return {-1, waiting}
  end
end

local function packed(...)
  local out = {}
  for i, text in ipairs({...}) do
    out[i] = #text .. ':' .. text
  end
  return table.concat(out)
end

local traces
if (#ARGV - 2) % 5 == 1 then
  traces = {}
  for trace in string.gmatch(ARGV[#ARGV] .. '\n', '([^\n]*)\n') do
    traces[#traces + 1] = trace
  end
end

local results, at, now = {}, 3, nil
for i = 4, 3 + math.floor((#ARGV - 2) / 5) do  -- not #KEYS: in a cluster one more is declared
  local due, recipient, v, to, event = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  at = at + 5
  if window > 0 and redis.call('HSETNX', KEYS[i], recipient, '') == 0 then
    -- A write, so that WAITAOF and WAIT behind it cover the first time too, whose answer may have been lost.
    redis.call('HSET', KEYS[i], recipient, '')
    results[i - 3] = 0
  else
    if window > 0 then
      redis.call('PEXPIRE', KEYS[i], window)
    end
    now = now or server_ms()
    local trace = traces and traces[i - 3] or ''
    if due ~= '' and tonumber(due) > now then
      if trace == '' then
        schedule(KEYS[2], KEYS[3], due, packed('events', 'v', v, 'to', to, 'event', event))
      else
        schedule(KEYS[2], KEYS[3], due, packed('events', 'v', v, 'to', to, 'event', event, 'trace', trace))
      end
    elseif trace == '' then
      redis.call('XADD', KEYS[1], '*', 'v', v, 'to', to, 'event', event)
    else
      redis.call('XADD', KEYS[1], '*', 'v', v, 'to', to, 'event', event, 'trace', trace)
    end
    results[i - 3] = 1
  end
end
return results
