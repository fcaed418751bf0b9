#!lua
-- Moves dead letters back to the queue that they came from, as new entries with fresh attempts. Without
-- flags the server refuses the whole script at its memory limit, so nothing is half done.
--
-- Who redrives what failed with InvalidAddress says that the address is good: it is used again.
--
-- KEYS[1] DLQ or dead stream   KEYS[2] the queue's stream   KEYS[3] lease hash of the DLQ
-- KEYS[4] suppressed hash
-- ARGV[1] group                ARGV[2+] entry ids
-- Returns for each id 1 (moved), 0 (not there any more), -1 (is being tried now) or -2 (holds nothing
-- that could be queued).

-- include fence
-- include dead_letter

local queue = string.match(KEYS[2], '([^:]*)$')
local function use_again(head)
  -- The lines are: version, id, type, recipient, to, address key, ...
  local recipient, key = string.match(head, '^[^\n]*\n[^\n]*\n[^\n]*\n([^\n]*)\n[^\n]*\n([^\n]*)')
  if recipient then
    redis.call('HDEL', KEYS[4], queue .. ':' .. recipient .. '/' .. key)
  end
end

local results = {}
for i = 2, #ARGV do
  local id, result = ARGV[i], 0
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry then
    local fields = entry[2]
    -- Six fields about the failure stand before those of the entry.
    local first = fields[1] == 'error' and fields[11] == 'last' and 13 or 1
    if is_being_tried(KEYS[1], KEYS[3], ARGV[1], id) then
      result = -1
    elseif #fields < first then
      result = -2
    else
      redis.call('XADD', KEYS[2], '*', unpack(fields, first))
      take_off(KEYS[1], KEYS[3], ARGV[1], id)
      if KEYS[4] and first > 1 and fields[2] == 'InvalidAddress' and fields[first] == 'head' then
        use_again(fields[first + 1])
      end
      result = 1
    end
  end
  results[i - 1] = result
end
return results
