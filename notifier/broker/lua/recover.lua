#!lua flags=allow-oom
-- Claims pending entries, oldest first, one page: those of owners that died, and our own whose answer
-- was lost on the way. Only a change of owner counts as a delivery.
--
-- KEYS[1] lease hash   KEYS[2] stream
-- ARGV[1] token        ARGV[2] group   ARGV[3] consumer
-- ARGV[4] where the page begins (an id, or "(" and an id)   ARGV[5] entries in a page
-- Returns {last id of the page or nil, {{id, fields, deliveries}, ...}}, or the error FENCED.

-- include fence

if not owns(KEYS[1], ARGV[1]) then
  return redis.error_reply('FENCED')
end
local page = redis.call('XPENDING', KEYS[2], ARGV[2], ARGV[4], '+', ARGV[5])
local entries, last = {}, false
for _, pending in ipairs(page) do
  local id, holder, deliveries = pending[1], pending[2], pending[4]
  if holder ~= ARGV[3] then
    deliveries = deliveries + 1
  end
  local claimed = redis.call('XCLAIM', KEYS[2], ARGV[2], ARGV[3], 0, id, 'RETRYCOUNT', deliveries)
  if claimed[1] then
    entries[#entries + 1] = {id, claimed[1][2], deliveries}
  end
  last = id
end
return {#page == tonumber(ARGV[5]) and last, entries}
