-- Puts copies of rows into Redis, each only if its key still holds what the reader saw before it read the row.
-- A change of the row in between has put a ticket there, so that a slow reader cannot bring back the old value.
--
-- KEYS[i]      the key of copy i
-- ARGV[1]      how long the copies are kept, in ms
-- ARGV[2i]     what the reader saw at key i; '' for nothing
-- ARGV[2i+1]   copy i
for i, key in ipairs(KEYS) do
  local held = redis.call('GET', key) or ''
  if held == ARGV[2 * i] then
    redis.call('SET', key, ARGV[2 * i + 1], 'PX', ARGV[1])
  end
end
