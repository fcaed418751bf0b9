#!lua flags=allow-oom
-- Puts a mark on all entries of some sets.
--
-- KEYS[1] prefix of the inbox's keys
-- ARGV[1] mark, as in inbox_mark   ARGV[2] where to end, as ZRANGE BYLEX takes it   ARGV[3+] sets
-- Returns the counts {unseen, seen but not read, read}.

-- include moved
-- include fence
-- include inbox_changed
-- include inbox_mark
-- include inbox_counts

-- Of more than this many it is only written down that there were many: who listens loads the inbox again.
local most_named = 50

local now, marked, named = string.format('%d', server_ms()), 0, {}
for i = 3, #ARGV do
  for _, member in ipairs(redis.call('ZRANGE', KEYS[1] .. ':' .. ARGV[i], '-', ARGV[2], 'BYLEX')) do
    local id = string.sub(member, 16)
    if inbox_mark(KEYS[1], id, ARGV[1], now) then
      marked = marked + 1
      if marked <= most_named then
        named[#named + 1] = 'mark'
        named[#named + 1] = id
      end
    end
  end
end
if marked > most_named then
  inbox_changed(KEYS[1], 'many', '')
elseif marked > 0 then
  inbox_changed(KEYS[1], unpack(named))
end
return inbox_counts(KEYS[1])
