#!lua
-- Writes down that a recipient has registered a device.
--
-- KEYS[1] set of recipient ids   ARGV[1] recipient id
-- Returns the ids of the others who have.

redis.call('SADD', KEYS[1], ARGV[1])
local others = {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if id ~= ARGV[1] then
    others[#others + 1] = id
  end
end
return others
