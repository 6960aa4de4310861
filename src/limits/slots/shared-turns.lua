-- The minutes of what users share, a tenant's and everyone's (place.ts). Of each there is a hash: the counts of minutes,
-- from the last one on, and `q`: the first minute that is not known to be full, the last turn given, the last minute counted
-- in and the minute in which former minutes were dropped. Minutes are read when they are needed.
local QUEUE = '>I4I6I4I4'

local function readQueue(i, limit)
  local found = redis.call('HMGET', KEYS[i], 'q', minuteNow)
  local q = { key = KEYS[i], limit = limit, window = i + 4, first = 0, last = 0, lastMinute = 0, swept = 0 }
  if found[1] then q.first, q.last, q.lastMinute, q.swept = unpack(QUEUE, found[1]) end
  q.counts, q.changed = { [minuteNow] = tonumber(found[2] or 0) }, {}
  if q.swept > redisMinute + 1 then
    q.first, q.last, q.lastMinute, q.swept, q.counts[minuteNow], q.anew = 0, 0, 0, 0, 0, true
  end
  return q
end

local function used(q, minute)
  local n = q.counts[minute]
  if not n then
    n = q.anew and 0 or tonumber(redis.call('HGET', q.key, minute) or 0)
    q.counts[minute] = n
  end
  return n
end

-- Remembered only where it was found by counts: a caller whose clock is a little behind still finds its own minute.
local function firstWithRoom(q)
  local start = max(q.first, minuteNow)
  local minute = start
  while used(q, minute) >= q.limit do minute = minute + 1 end
  if minute > start then q.first = minute end
  return minute
end

local function sharedTurn(q, from)
  local open = firstWithRoom(q)
  local asked = floor(from / MINUTE)
  local minute = max(asked, open)
  while used(q, minute) >= q.limit do minute = minute + 1 end
  if minute == asked and (minute ~= open or from >= q.last) then return from end
  local turn = minute * MINUTE + floor(used(q, minute) * MINUTE * 4 / (q.limit * 5))
  return max(from, turn, minute == open and q.last or 0)
end

local function countShared(q, at, waits)
  local minute = floor(at / MINUTE)
  if waits and minute == firstWithRoom(q) then q.last = max(q.last, at) end
  q.counts[minute], q.changed[minute], q.dirty = used(q, minute) + 1, true, true
  if minute > q.lastMinute then q.lastMinute = minute end
end

local function writeQueue(q)
  if q.anew then redis.call('DEL', q.key) end
  if q.swept < minuteNow then
    for _, field in ipairs(redis.call('HKEYS', q.key)) do
      local minute = tonumber(field)
      if minute and minute < minuteNow - 1 then redis.call('HDEL', q.key, field) end
    end
    q.swept = minuteNow
  end
  redis.call('HSET', q.key, 'q', pack(QUEUE, q.first, q.last, q.lastMinute, q.swept))
  for minute in pairs(q.changed) do redis.call('HSET', q.key, minute, q.counts[minute]) end
  redis.call('PEXPIRE', q.key, (q.lastMinute + 2) * MINUTE - now)
end
