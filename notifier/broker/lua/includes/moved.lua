-- Nothing belongs here any more, once the number of partitions has changed: see partition_close.lua. Who still
-- comes has read the number before that.
if redis.call('EXISTS', string.match(KEYS[1], '^{.-}') .. ':moved') == 1 then
  return redis.error_reply('REPARTITIONED')
end
