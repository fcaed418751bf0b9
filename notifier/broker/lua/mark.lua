#!lua flags=allow-oom
-- Counts one more owner of an entry, or of the head of a parked lane, before it is tried again: should
-- the owner die over it, the next one knows. What the dead owner had not come to try is not counted.
--
-- KEYS[1] lease hash   KEYS[2] stream   KEYS[3] retries hash
-- ARGV[1] token        ARGV[2] group    ARGV[3] consumer
-- ARGV[4] owners       ARGV[5] entry id ARGV[6] lane, or empty for an entry of the stream
-- Returns OK, or the error FENCED.

-- include fence

if not owns(KEYS[1], ARGV[1]) then
  return redis.error_reply('FENCED')
end
if ARGV[6] == '' then
  redis.call('XCLAIM', KEYS[2], ARGV[2], ARGV[3], 0, ARGV[5], 'RETRYCOUNT', ARGV[4], 'JUSTID')
else
  redis.call('HSET', KEYS[3], ARGV[6], ARGV[4] .. ' ' .. ARGV[1])
end
return redis.status_reply('OK')
