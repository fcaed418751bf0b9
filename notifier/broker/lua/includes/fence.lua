local function server_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- True while the lease still belongs to this token. The token stays in the hash after the lease has
-- run out, so an owner that nobody replaced may still settle what it has in hand.
local function owns(lease, token)
  return redis.call('HGET', lease, 'token') == token
end
