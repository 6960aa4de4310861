-- What the script is asked, what it answers, and by which clock. The files of this folder are one script, joined in the
-- order in which redis-limits.ts names them.
--
-- Gives each of a chunk of one tenant's notifications a slot: now, or the next turn behind those that wait. It is counted
-- there in all windows of its user, of its tenant and of everyone, and in the hours of its user's cap. The rules are those
-- of place.ts and cap.ts, in the same order.
-- Windows are fixed and aligned to the clock: the caller's, as long as that is no more than a minute off Redis's, which all
-- callers share; else Redis's, or a caller that is ahead, and then those that are right, would begin its users' windows
-- anew with each that asks. Which of the two clocks is wrong nobody knows, and a turn by the one may be hours away by the
-- other: so such a caller is given none, and asks again. What lies ahead of Redis's clock is forgotten: it would keep
-- everybody waiting until that time has come.
--
-- KEYS[1]     the tenant
-- KEYS[2]     everyone, if there is a global limit
-- KEYS[..]    the users: the tenant's key, a colon, the id
-- ARGV[1]     now, in ms
-- ARGV[2..5]  how many a user's windows allow: 10 seconds, minute, hour, day
-- ARGV[6]     how many the tenant's minute allows, 0 for no limit
-- ARGV[7]     how many everyone's minute allows, 0 for no limit
-- ARGV[8]     the notifications, 19 bytes each: number of the user's key (from 1); 1 if it is never refused by others than
--             the cap; what the cap does when it is full (0 there is none, 1 it refuses, 2 it gives a turn, 3 it lets
--             pass), its share of the cap; 8 bytes that tell this attempt for this notification from others; in how many
--             ms it expires (0: never); and in how many hours its turn is that the cap gave it before (65535: none)
--
-- ARGV[9]     not empty: only look, and count nothing
-- ARGV[10]    given: what is taken for Redis's clock, in ms
--
-- Answers a flat list, of each in turn. Of one that does not go at once 4 numbers: its slot in ms, the window it waits
-- for (1-4 the user's, 5 the tenant's, 6 everyone's, 7 the cap), the usage of that window now, and 1 if it is counted in
-- its slot, 0 if it would expire before or the cap refuses it. A slot of 0: it keeps the turn that the cap gave it. Of one
-- that goes at once a single number, because these are many: -1 - window - 8 * (cap + 65537 * usage), where the window is
-- that with the fewest left (0: none was asked) and has that usage without it, and cap is 1 more than the cap's hour has
-- (0: there is none). Last, where the caller's clock is apart, Redis's: no turn is counted then.

local ITEM_SIZE = 19
local CLOCKS_APART_SECONDS = 60
local MS = { 10000, 60000, 3600000, 86400000 }
local MINUTE, HOUR, DAY = MS[2], MS[3], MS[4]
local REFUSES, PASSES = 1, 3
local NOT_HELD = 65535

local floor, max, min, sub, find = math.floor, math.max, math.min, string.sub, string.find
local pack, unpack = struct.pack, struct.unpack
local now = tonumber(ARGV[1])
local limits = { tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]) }
local limit1, limit2, limit3, limit4 = limits[1], limits[2], limits[3], limits[4]
local items = ARGV[8]
local firstUser = tonumber(ARGV[7]) > 0 and 3 or 2
-- What is kept (user-value.lua, shared-turns.lua), of users by their numbers.
local queues, users
local second
local now1, now2, now3, now4, minuteNow
local function setClock(at)
  now, second = at, floor(at / 1000)
  now1, now2, now3, now4 = floor(at / MS[1]), floor(at / MS[2]), floor(at / MS[3]), floor(at / MS[4])
  minuteNow = now2
end
setClock(now)

local redisNow = tonumber(ARGV[10] or '')
if not redisNow then
  local time = redis.call('TIME')
  redisNow = tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)
end
local redisSecond, redisMinute = floor(redisNow / 1000), floor(redisNow / MINUTE)
-- By how much the caller is behind Redis, if that is too much, in ms and in hours of the clock.
local apart, hoursApart = 0, 0
if math.abs(redisNow - now) > CLOCKS_APART_SECONDS * 1000 then
  apart, hoursApart = redisNow - now, floor(redisNow / HOUR) - now3
  setClock(redisNow)
end
