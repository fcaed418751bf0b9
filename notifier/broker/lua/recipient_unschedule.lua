#!lua flags=allow-oom
-- Drops what is scheduled for one recipient, a bounded step of the partition's scheduled entries at a time.
--
-- KEYS[1] scheduled zset   KEYS[2] scheduled items hash
-- ARGV[1] cursor, 0 to begin   ARGV[2] entries to look at, about   ARGV[3] recipient id
-- Returns {next cursor, "0" at the end; dropped}.

-- include packed

-- A delivery names the recipient in the fourth line of its head; an event has `to`, the bare id or a JSON
-- object.
local function recipient_of(item)
  local strings, to = unpacked(item), nil
  for i = 2, #strings - 1, 2 do
    if strings[i] == 'head' then
      return string.match(strings[i + 1], '^[^\n]*\n[^\n]*\n[^\n]*\n([^\n]*)')
    elseif strings[i] == 'to' then
      to = strings[i + 1]
    end
  end
  if to and string.sub(to, 1, 1) == '{' then
    local is_json, recipient = pcall(cjson.decode, to)
    return is_json and recipient.id
  end
  return to
end

local scanned = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
local dropped = 0
for i = 1, #scanned[2], 2 do
  local number = scanned[2][i]
  if number ~= 'last' and recipient_of(scanned[2][i + 1]) == ARGV[3] then
    redis.call('ZREM', KEYS[1], number)
    redis.call('HDEL', KEYS[2], number)
    dropped = dropped + 1
  end
end
return {scanned[1], dropped}
