#!lua flags=no-writes
-- Looks through some of the traces of an hour for the lines of one event.
--
-- KEYS[1] traces of one hour, a hash   ARGV[1] cursor   ARGV[2] count   ARGV[3] event id
-- Returns {next cursor, bytes looked through, line, ...}.

local row = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local start = ARGV[3] .. '\t'
local bytes, found = 0, {row[1], 0}
for i = 2, #row[2], 2 do
  local lines = row[2][i]
  bytes = bytes + #lines
  if string.find(lines, start, 1, true) then
    for line in string.gmatch(lines, '[^\n]+') do
      if string.sub(line, 1, #start) == start then
        found[#found + 1] = line
      end
    end
  end
end
found[2] = bytes
return found
