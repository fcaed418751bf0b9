-- Puts one mark on one entry and moves it to the set of its new state. Returns nil when the id is unknown,
-- true when something changed, false when it has the mark already: it keeps its first time.
-- `now` is in ms, as a string of digits.
local function inbox_mark(prefix, id, mark, now)
  local state = redis.call('HGET', prefix .. ':states', id)
  if not state then
    return nil
  end
  local function set_of(seen, read, archived)
    local level = read ~= '0' and 'read' or seen ~= '0' and 'seen' or 'unseen'
    return prefix .. ':' .. (archived ~= '0' and 'archived_' or '') .. level
  end

  local created, seen, read, archived = string.match(state, '^(%d+) (%d+) (%d+) (%d+)$')
  local before = set_of(seen, read, archived)
  if (mark == 'seen' or mark == 'read') and seen == '0' then
    seen = now
  end
  if mark == 'read' then
    read = now
  elseif mark == 'unread' then
    read = '0'
  elseif mark == 'archived' then
    archived = now
  elseif mark == 'unarchived' then
    archived = '0'
  end

  local after = set_of(seen, read, archived)
  if after == before then
    return false
  end
  local member = string.format('%015d', created) .. id
  redis.call('ZREM', before, member)
  redis.call('ZADD', after, 0, member)
  redis.call('HSET', prefix .. ':states', id, table.concat({created, seen, read, archived}, ' '))
  return true
end
