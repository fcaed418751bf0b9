#!lua flags=allow-oom
-- Puts a mark on all entries of some sets.
--
-- KEYS[1] prefix of the inbox's keys
-- ARGV[1] mark, as in inbox_mark   ARGV[2] where to end, as ZRANGE BYLEX takes it   ARGV[3+] sets
-- Returns the counts {unseen, seen but not read, read}.

-- include fence
-- include inbox_mark
-- include inbox_counts

local now = string.format('%d', server_ms())
for i = 3, #ARGV do
  for _, member in ipairs(redis.call('ZRANGE', KEYS[1] .. ':' .. ARGV[i], '-', ARGV[2], 'BYLEX')) do
    inbox_mark(KEYS[1], string.sub(member, 16), ARGV[1], now)
  end
end
return inbox_counts(KEYS[1])
