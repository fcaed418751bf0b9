-- How many entries that are not archived are {unseen, seen but not read, read}.
local function inbox_counts(prefix)
  return {
    redis.call('ZCARD', prefix .. ':unseen'),
    redis.call('ZCARD', prefix .. ':seen'),
    redis.call('ZCARD', prefix .. ':read'),
  }
end
