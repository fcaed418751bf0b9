#!lua flags=allow-oom
-- Closes a partition whose recipients are about to move: from now on nobody changes anything here but who moves
-- them. Whoever adds to the streams by hand gets WRONGTYPE, and a worker that was held up is fenced. It stays
-- closed for good.
--
-- KEYS[1] moved, a string   KEYS[2] events stream   KEYS[3] where that waits to be moved
-- KEYS[4] suppressed hash   KEYS[5] where that waits to be moved   KEYS[6+] lease hashes
-- ARGV[1] what those read who look at what is closed
-- Returns the token of an owner that lives, and then nothing has changed; else nil.

-- include fence

if redis.call('EXISTS', KEYS[1]) == 1 then
  return false
end
for i = 6, #KEYS do
  local held = redis.call('HMGET', KEYS[i], 'token', 'until')
  if held[1] and held[1] ~= '' and tonumber(held[2] or '0') > server_ms() then
    return held[1]
  end
end
for i = 6, #KEYS do
  redis.call('DEL', KEYS[i])
end
for i = 2, 4, 2 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('RENAME', KEYS[i], KEYS[i + 1])
  end
  redis.call('SET', KEYS[i], ARGV[1])
end
redis.call('SET', KEYS[1], ARGV[1])
return false
