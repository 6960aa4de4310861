-- Takes up to a number of notifications from what all tenants together may have in a minute.
--
-- KEYS[1]  the minute
-- ARGV[1]  how many it allows
-- ARGV[2]  how many are wanted
-- ARGV[3]  how many more are counted whatever the limit
--
-- Answers how many of the wanted are granted, how many were counted before, and how many were refused before.
local counted = tonumber(redis.call('HGET', KEYS[1], 'counted') or '0')
local refused = tonumber(redis.call('HGET', KEYS[1], 'refused') or '0')
local wanted = tonumber(ARGV[2])
local granted = math.min(wanted, math.max(0, tonumber(ARGV[1]) - counted))
redis.call('HINCRBY', KEYS[1], 'counted', granted + tonumber(ARGV[3]))
redis.call('HINCRBY', KEYS[1], 'refused', wanted - granted)
redis.call('PEXPIRE', KEYS[1], 120000)
return { granted, counted, refused }
