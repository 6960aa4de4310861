-- Gives each of one tenant's hand-overs its place in a day of its recipient's: today, or the next day with room. The rules
-- are those of channel-day.ts. Days are the callers': Redis's clock is not asked.
--
-- KEYS    of each user and channel a sorted set: what tells a hand-over from others, with the day that has its place and how
--         far behind it stands in that, in STEPs
-- ARGV    of each hand-over seven: number of its key (from 1), the tag, the day's limit (0: it is only counted), 1 if it is
--         never refused, today, the weekdays on which nothing may come (bit 0: Sunday), and the last day in which a place is
--         of use (-1: any)
-- Last, if given, "look": nothing is counted.
--
-- Answers of each four numbers: the day, how many today has, how many have their places in that day before it, and 1 if it
-- has its place there, else 0.
local HORIZON = 31
local ITEM = 7
local looking = #ARGV % ITEM == 1

local STEP = 2 ^ -26

local function count(key, day)
  return redis.call('ZCOUNT', key, day, '(' .. day + 1)
end

-- How many are before one in a day. `had`: its place, if it has one.
local function before(key, day, had)
  if had and math.floor(had) == day then return redis.call('ZCOUNT', key, day, had) - 1 end
  return count(key, day)
end

-- Day 0 was a Thursday.
local function isClosed(closedDays, day)
  return math.floor(closedDays / 2 ^ ((day + 4) % 7)) % 2 == 1
end

local function nextIn(key, day)
  local last = redis.call('ZREVRANGEBYSCORE', key, '(' .. day + 1, day, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  return last and tonumber(last) + STEP or day
end

local answer, touched = {}, {}
for at = 0, math.floor(#ARGV / ITEM) - 1 do
  local number, tag = tonumber(ARGV[at * ITEM + 1]), ARGV[at * ITEM + 2]
  local limit, exempt = tonumber(ARGV[at * ITEM + 3]), ARGV[at * ITEM + 4] == '1'
  local today, closedDays = tonumber(ARGV[at * ITEM + 5]), tonumber(ARGV[at * ITEM + 6])
  local last = tonumber(ARGV[at * ITEM + 7])
  local key = KEYS[number]
  local had = tonumber(redis.call('ZSCORE', key, tag) or '')
  local used = count(key, today)
  local day = today
  if not exempt and limit > 0 then
    while day - today <= HORIZON
      and (day > today and isClosed(closedDays, day) or before(key, day, had) >= limit) do day = day + 1 end
  end
  local taken = day - today <= HORIZON and (last < 0 or day <= last)
  local nth = before(key, day, had)
  if not looking then
    if not taken then
      redis.call('ZREM', key, tag)
    elseif not (had and math.floor(had) == day) then
      redis.call('ZADD', key, nextIn(key, day), tag)
      touched[key] = today
    end
  end
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = day, used, nth, taken and 1 or 0
end

for key, today in pairs(touched) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. today - 1)
  local furthest = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]
  if furthest then redis.call('EXPIRE', key, (math.max(math.floor(tonumber(furthest)) - today, 0) + 2) * 86400) end
end
return answer
