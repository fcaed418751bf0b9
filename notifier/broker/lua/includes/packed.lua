-- The strings in a packed item: each is its length in decimal, a colon, and the bytes.
local function unpacked(item)
  local strings, at = {}, 1
  while at <= #item do
    local colon = string.find(item, ':', at, true)
    local size = tonumber(string.sub(item, at, colon - 1))
    strings[#strings + 1] = string.sub(item, colon + 1, colon + size)
    at = colon + size + 1
  end
  return strings
end
