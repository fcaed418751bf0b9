#!lua
-- Takes entries over from streams of another layout, each once, and keeps their times. Without flags the server
-- refuses the whole script at its memory limit.
--
-- KEYS[1] stream   KEYS[2] taken, a hash: name of a source -> id of the last entry that came from it
-- ARGV for each entry, in the order of ids: name of the source, milliseconds, rest of its id, number of words,
-- field, value, ...
-- Returns how many were new.

local last, new, at = {}, 0, 1
while at <= #ARGV do
  local source, ms, rest, words = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  if not last[source] then
    local done = redis.call('HGET', KEYS[2], source) or '0-0'
    last[source] = {tonumber(string.match(done, '^%d+')), tonumber(string.match(done, '%d+$'))}
  end
  local done = last[source]
  if ms > done[1] or ms == done[1] and rest > done[2] then
    redis.call('XADD', KEYS[1], ARGV[at + 1] .. '-*', unpack(ARGV, at + 4, at + 3 + words))
    redis.call('HSET', KEYS[2], source, ARGV[at + 1] .. '-' .. ARGV[at + 2])
    last[source], new = {ms, rest}, new + 1
  end
  at = at + 4 + words
end
return new
