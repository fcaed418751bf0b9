-- Adds lines to the traces of an hour, a hash. `field` is the same when a script runs again.
local function trace(key, field, lines, expires_at)
  if redis.call('HSET', key, field, lines) == 1 and redis.call('HLEN', key) == 1 then
    redis.call('PEXPIREAT', key, expires_at)
  end
end
