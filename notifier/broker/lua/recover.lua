#!lua flags=allow-oom
-- Claims pending entries, oldest first, one page: those of owners that died, and our own whose answer
-- was lost on the way.
--
-- KEYS[1] lease hash   KEYS[2] stream
-- ARGV[1] token        ARGV[2] group   ARGV[3] consumer
-- ARGV[4] where the page begins (an id, or "(" and an id)   ARGV[5] entries in a page
-- ARGV[6] 1 if the change of owner is counted now, 0 if by mark.lua, before the entry is tried
-- Returns {last id of the page or nil, {{id, fields, owners}, ...}}, or the error FENCED. `owners`
-- counts those that have had the entry, this one included. The lease's `claimed` is the newest entry that
-- may have had another owner before: lease_release.lua must not forget that one died of it.

-- include fence
-- include remove_empty_consumers

if not owns(KEYS[1], ARGV[1]) then
  return redis.error_reply('FENCED')
end
local page = redis.call('XPENDING', KEYS[2], ARGV[2], ARGV[4], '+', ARGV[5])
local entries, last, of_others = {}, false, false
for _, pending in ipairs(page) do
  local id, holder, counted = pending[1], pending[2], pending[4]
  local owners = math.max(1, holder == ARGV[3] and counted or counted + 1)
  if ARGV[6] == '1' or counted == 0 then
    counted = owners
  end
  local claimed = redis.call('XCLAIM', KEYS[2], ARGV[2], ARGV[3], 0, id, 'RETRYCOUNT', counted)
  if claimed[1] then
    entries[#entries + 1] = {id, claimed[1][2], owners}
  end
  last, of_others = id, of_others or holder ~= ARGV[3]
end
local newest = of_others and redis.call('XPENDING', KEYS[2], ARGV[2])[3]
if newest then
  redis.call('HSET', KEYS[1], 'claimed', newest)
end
local is_last_page = #page < tonumber(ARGV[5])
if is_last_page then
  remove_empty_consumers(KEYS[2], ARGV[2], ARGV[3])
end
return {not is_last_page and last, entries}
