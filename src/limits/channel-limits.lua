-- Gives each of one tenant's hand-overs its place in a day of its recipient's: today, or the next day with room. The rules
-- are those of channel-day.ts. Days are the callers': Redis's clock is not asked.
--
-- KEYS    of each user and channel a sorted set: what tells a hand-over from others, with the day that has its place
-- ARGV    of each hand-over six: number of its key (from 1), the tag, the day's limit (0: it is only counted), 1 if it is
--         never refused, today, and the last day in which a place is of use (-1: any)
-- Last, if given, "look": nothing is counted.
--
-- Answers of each four numbers: the day, how many today has, how many have their places in that day before it, and 1 if it
-- has its place there, else 0.
local HORIZON = 31
local ITEM = 6
local looking = #ARGV % ITEM == 1

local function count(key, day)
  return redis.call('ZCOUNT', key, day, day)
end

local answer, touched = {}, {}
for at = 0, math.floor(#ARGV / ITEM) - 1 do
  local number, tag = tonumber(ARGV[at * ITEM + 1]), ARGV[at * ITEM + 2]
  local limit, exempt = tonumber(ARGV[at * ITEM + 3]), ARGV[at * ITEM + 4] == '1'
  local today, last = tonumber(ARGV[at * ITEM + 5]), tonumber(ARGV[at * ITEM + 6])
  local key = KEYS[number]
  local had = tonumber(redis.call('ZSCORE', key, tag) or '')
  local used = count(key, today)
  local day, nth, taken = today, used - 1, true
  if had ~= today then
    if not exempt and limit > 0 then
      while day - today <= HORIZON and day ~= had and count(key, day) >= limit do day = day + 1 end
    end
    taken = day - today <= HORIZON and (last < 0 or day <= last)
    nth = count(key, day)
    if day == had then nth = nth - 1 end
    if taken and not looking then
      redis.call('ZADD', key, day, tag)
      touched[key] = today
    end
  end
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = day, used, nth, taken and 1 or 0
end

for key, today in pairs(touched) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. today - 1)
  local furthest = tonumber(redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2])
  redis.call('EXPIRE', key, (math.max(furthest - today, 0) + 2) * 86400)
end
return answer
