#!lua flags=allow-oom
-- The number of partitions is another one from now on; or stays what it was.
--
-- KEYS[1] meta hash   ARGV[1] the next number   ARGV[2] its layout, or empty: nothing was moved

if redis.call('HGET', KEYS[1], 'changing') == ARGV[1] then
  if ARGV[2] ~= '' then
    redis.call('HSET', KEYS[1], 'partitions', ARGV[1], 'layout', ARGV[2])
  end
  redis.call('HDEL', KEYS[1], 'changing')
end
return redis.status_reply('OK')
