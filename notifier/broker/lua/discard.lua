#!lua flags=allow-oom
-- Deletes dead letters. It may pass the memory limit: it frees memory.
--
-- KEYS[1] DLQ or dead stream   KEYS[2] lease hash of the DLQ
-- ARGV[1] group                ARGV[2+] entry ids
-- Returns for each id 1 (deleted), 0 (not there any more) or -1 (is being tried now).

-- include fence
-- include dead_letter

local results = {}
for i = 2, #ARGV do
  if is_being_tried(KEYS[1], KEYS[2], ARGV[1], ARGV[i]) then
    results[i - 1] = -1
  else
    results[i - 1] = take_off(KEYS[1], KEYS[2], ARGV[1], ARGV[i])
  end
end
return results
