-- Workers that are gone leave their consumers behind; `but` is the worker that asks, and stays.
local function remove_empty_consumers(stream, group, but)
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local name, pending = consumer[2], consumer[4]
    if pending == 0 and name ~= but then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
    end
  end
end
