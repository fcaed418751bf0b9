#!lua flags=allow-oom
-- The fenced commit: everything that the owner of a queue changes, in one step, if the lease is still
-- its own. Each operation looks first whether its entry is still there, so a commit whose answer was
-- lost may be sent again. It may pass the memory limit: settling is what frees memory.
--
-- KEYS[1] lease hash   KEYS[2] stream   KEYS[3] parked zset   KEYS[4] retries hash
-- KEYS[5] scheduled zset   KEYS[6] scheduled items hash
-- ARGV[1] token   ARGV[2] group   then operations:
--   ack  n id ...                        done with these entries
--   move id n command ...                take the entry off the stream, then run the commands
--   pop  lane key id due n command ...   take the lane's head off its list, then run the commands;
--                                        `due` (ms, or empty) is when to hand the lane out again
--   keep lane key id n command ...       the head stays (the commands replace it)
--   back lane                            the lane was handed out and not tried: it is due at once
--   trace key field lines expires        see includes/trace.lua
-- A command is: argc word ...; besides Redis's own there are INBOX.ADD and SCHEDULE.
-- Returns OK, or the error FENCED.

-- include fence
-- include schedule
-- include inbox_add
-- include trace

if not owns(KEYS[1], ARGV[1]) then
  return redis.error_reply('FENCED')
end

local at = 3
local function word()
  at = at + 1
  return ARGV[at - 1]
end

local function commands(run)
  for _ = 1, tonumber(word()) do
    local first = at + 1
    local argc = tonumber(word())
    if run then
      local name = ARGV[first]
      if name == 'INBOX.ADD' then
        inbox_add(ARGV[first + 1], ARGV[first + 2], ARGV[first + 3], ARGV[first + 4], tonumber(ARGV[first + 5]))
      elseif name == 'SCHEDULE' then
        schedule(KEYS[5], KEYS[6], ARGV[first + 1], ARGV[first + 2])
      else
        redis.call(unpack(ARGV, first, first + argc - 1))
      end
    end
    at = first + argc
  end
end

local function is_head(key, id)
  local head = redis.call('LINDEX', key, 0)
  local start = #id .. ':' .. id
  return head and string.sub(head, 1, #start) == start
end

while at <= #ARGV do
  local operation = word()
  if operation == 'ack' then
    local n = tonumber(word())
    redis.call('XACK', KEYS[2], ARGV[2], unpack(ARGV, at, at + n - 1))
    redis.call('XDEL', KEYS[2], unpack(ARGV, at, at + n - 1))
    at = at + n
  elseif operation == 'move' then
    local id = word()
    redis.call('XACK', KEYS[2], ARGV[2], id)
    -- Not XACK's answer: it would be 0 too when the group is gone, and then the entry came again.
    commands(redis.call('XDEL', KEYS[2], id) == 1)
  elseif operation == 'pop' then
    local lane, key, id, due = word(), word(), word(), word()
    local head = is_head(key, id)
    if head then
      redis.call('LPOP', key)
      redis.call('HDEL', KEYS[4], lane)
      if redis.call('LLEN', key) == 0 then
        redis.call('ZREM', KEYS[3], lane)
      elseif due ~= '' then
        redis.call('ZADD', KEYS[3], due, lane)
      else  -- the next one is in hand, and this owner may die over it
        redis.call('HSET', KEYS[4], lane, '1 ' .. ARGV[1])
      end
    end
    commands(head)
  elseif operation == 'trace' then
    trace(word(), word(), word(), word())
  elseif operation == 'back' then
    local lane = word()
    redis.call('ZADD', KEYS[3], 'XX', 0, lane)
    if redis.call('HGET', KEYS[4], lane) == '1 ' .. ARGV[1] then
      redis.call('HDEL', KEYS[4], lane)
    end
  else
    local lane, key, id = word(), word(), word()
    local head = is_head(key, id)
    if head then
      redis.call('HDEL', KEYS[4], lane)
    end
    commands(head)
  end
end
return redis.status_reply('OK')
