-- Remembers how far a device has received, which never goes back, and that it was there.
--
-- KEYS[1]  the user's presence
-- ARGV[1]  the device
-- ARGV[2]  the sequence
-- ARGV[3]  now, in ms
-- ARGV[4]  how long the user is remembered, in ms
local field = 'r:' .. ARGV[1]
if tonumber(redis.call('HGET', KEYS[1], field) or '0') < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], field, ARGV[2])
end
redis.call('HSET', KEYS[1], 'd:' .. ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
