#!lua flags=allow-oom
-- Looks through some of the traces of an hour, and removes the lines of one recipient.
--
-- KEYS[1] traces of one hour, a hash   ARGV[1] cursor   ARGV[2] count   ARGV[3] recipient id
-- Returns {next cursor, bytes looked through, lines removed}.

local row = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local between = '\t' .. ARGV[3] .. '\t'
local bytes, removed = 0, 0
for i = 2, #row[2], 2 do
  local lines = row[2][i]
  bytes = bytes + #lines
  if string.find(lines, between, 1, true) then
    local kept = {}
    for line in string.gmatch(lines, '[^\n]+') do
      local id = string.match(line, '^[^\t]*')
      if string.sub(line, #id + 1, #id + #between) == between then
        removed = removed + 1
      else
        kept[#kept + 1] = line .. '\n'
      end
    end
    if #kept > 0 then
      redis.call('HSET', KEYS[1], row[2][i - 1], table.concat(kept))
    else
      redis.call('HDEL', KEYS[1], row[2][i - 1])
    end
  end
end
return {row[1], bytes, removed}
