-- Keeps an entry back until `due` (ms). `item` is packed: the queue, then field, value, ...
local function schedule(scheduled, items, due, item)
  local number = string.format('%016d', redis.call('HINCRBY', items, 'last', 1))
  redis.call('HSET', items, number, item)
  redis.call('ZADD', scheduled, due, number)
end
