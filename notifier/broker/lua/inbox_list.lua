#!lua flags=no-writes
-- One page, newest first: the newest of each set, merged.
--
-- KEYS[1] prefix of the inbox's keys
-- ARGV[1] entries in a page   ARGV[2] where to begin, as ZRANGE BYLEX takes it   ARGV[3+] sets
-- Returns {{unseen, seen but not read, read}, 1 if more follow or 0, member, entry, state, ...}.

-- include moved
-- include inbox_counts

-- Whether `a` comes before `b`. Ties are told apart byte by byte, as the sets do it: comparing strings
-- in Lua would follow the server's locale, and a page could then end in the middle of a tie.
local function newer(a, b)
  if a.ms ~= b.ms then
    return a.ms > b.ms
  end
  local left, right = a.member, b.member
  for i = 16, math.min(#left, #right) do
    local x, y = string.byte(left, i), string.byte(right, i)
    if x ~= y then
      return x > y
    end
  end
  return #left > #right
end

local size, found = tonumber(ARGV[1]), {}
for i = 3, #ARGV do
  local members = redis.call('ZRANGE', KEYS[1] .. ':' .. ARGV[i], ARGV[2], '-', 'BYLEX', 'REV', 'LIMIT', 0, size + 1)
  for _, member in ipairs(members) do
    found[#found + 1] = {ms = tonumber(string.sub(member, 1, 15)), member = member}
  end
end
table.sort(found, newer)

local page, ids = {inbox_counts(KEYS[1]), #found > size and 1 or 0}, {}
for i = 1, math.min(size, #found) do
  ids[i] = string.sub(found[i].member, 16)
end
if #ids > 0 then
  local entries = redis.call('HMGET', KEYS[1] .. ':entries', unpack(ids))
  local states = redis.call('HMGET', KEYS[1] .. ':states', unpack(ids))
  for i = 1, #ids do
    page[3 * i] = found[i].member
    page[3 * i + 1] = entries[i]
    page[3 * i + 2] = states[i]
  end
end
return page
