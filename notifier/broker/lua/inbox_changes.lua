#!lua flags=no-writes
-- What has become of an inbox since a position in its changes.
--
-- A position is the id of a change; or 0-<ms>: that there were none at that time.
--
-- KEYS[1] prefix of the inbox's keys
-- ARGV[1] position, or empty: from now on
-- ARGV[2] 1: whoever asks knew this position for the latest within the time that changes are kept
-- ARGV[3] most changes in the answer   ARGV[4] bytes of entries after which it ends
-- Returns {how, position, more, {unseen, seen but not read, read}, change, what, id, entry, state, ...}.
-- How: `on` (goes on from the position), `new` (there was none) or `reset` (what was missed is not known any
-- more). More: 1 when further changes follow. Entries and states are as they are now, and changes of
-- entries that have fallen out are left out.
-- To who knew the latest and misses nothing: {`same`, position}.

-- include moved
-- include fence
-- include inbox_changed
-- include inbox_counts

local changes, position, knew = KEYS[1] .. ':changes', ARGV[1], ARGV[2] == '1'
local most, budget = tonumber(ARGV[3]), tonumber(ARGV[4])
local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
newest = newest and newest[1] or string.format('0-%d', server_ms())
local none_since, none_now = string.match(position, '^0%-(%d+)$'), string.match(newest, '^0%-(%d+)$')

local function ms_of(change)
  return tonumber(string.match(change, '^%d+'))
end

-- The position was given while there was no stream, and this is the first one since.
local function is_first_stream_since(ms)
  local of = {}
  local info = redis.call('XINFO', 'STREAM', changes)
  for i = 1, #info, 2 do
    of[info[i]] = info[i + 1]
  end
  local age = ms_of(of['first-entry'][1]) - ms
  return of['entries-added'] == of['length'] and age >= 0 and (knew or age < changes_kept * 1000)
end

-- The changes after the position, or nil when some may be missing.
local function missed()
  if none_now then
    local age = none_now - (none_since or ms_of(position))
    local expired = age >= changes_kept * 1000
    -- Nothing was added, or it would be there still. A change that is gone has expired, or was lost.
    if knew and (none_since or expired) or none_since and not expired then
      return {}
    end
  elseif none_since then
    if is_first_stream_since(tonumber(none_since)) then
      return redis.call('XRANGE', changes, '-', '+', 'COUNT', most + 1)
    end
  else
    local found = redis.call('XRANGE', changes, position, '+', 'COUNT', most + 2)
    if found[1] and found[1][1] == position then
      table.remove(found, 1)
      return found
    end
  end
end

local rows, found = {}, position == '' and {} or missed()
if found and #found == 0 and knew then
  return {'same', newest}
end
local answer = {position == '' and 'new' or found and 'on' or 'reset', newest, 0, inbox_counts(KEYS[1])}
for number, change in ipairs(found or {}) do
  if number > most or budget <= 0 then
    answer[2], answer[3] = found[number - 1][1], 1
    break
  end
  for i = 1, #change[2], 2 do
    local what, id = change[2][i], change[2][i + 1]
    local entry = what == 'add' and redis.call('HGET', KEYS[1] .. ':entries', id)
    local state = redis.call('HGET', KEYS[1] .. ':states', id)
    if state or id == '' then
      for _, value in ipairs({change[1], what, id, entry or '', state or ''}) do
        answer[#answer + 1] = value
      end
      budget = budget - #(entry or '')
    end
  end
end
return answer
