-- Puts tickets in the place of copies of rows in Redis; leaves alone what changes have put at their keys.
--
-- KEYS[i]   the key of copy i
-- ARGV[1]   the ticket
-- ARGV[2]   how long it is kept, in ms
for _, key in ipairs(KEYS) do
  if string.sub(redis.call('GET', key) or '', 1, 1) == '=' then
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
  end
end
