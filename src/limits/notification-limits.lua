-- Gives each of a chunk of one tenant's notifications a slot: now, or the next turn behind those that wait. It is counted
-- there in all windows of its user, of its tenant and of everyone, and in the hours of its user's cap. The rules are those
-- of place.ts and cap.ts, in the same order.
-- Windows are fixed and aligned to the clock, the caller's. Only where another has left something by a clock that is more
-- than a minute ahead of this one's, Redis's own says which of the two is wrong. What lies ahead of Redis's as well is
-- forgotten: it would keep everybody waiting until that time has come. Else the caller is behind, and counts by Redis's
-- clock, or it would begin its users' windows anew with each that asks.
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
-- ARGV[9]     given: only look, and count nothing
--
-- Answers a flat list, of each in turn. Of one that does not go at once 4 numbers: its slot in ms, the window it waits
-- for (1-4 the user's, 5 the tenant's, 6 everyone's, 7 the cap), the usage of that window now, and 1 if it is counted in
-- its slot, 0 if it would expire before or the cap refuses it. A slot of 0: it keeps the turn that the cap gave it. Of one
-- that goes at once a single number, because these are many: -1 - window - 8 * (cap + 65537 * usage), where the window is
-- that with the fewest left (0: none was asked) and has that usage without it, and cap is 1 more than the cap's hour has
-- (0: there is none).
--
-- A user's value: of each window the index of the one that is filled, which may lie ahead, its count, the index and count
-- of the last that was left because it was full; the last turn given; the first hour of the cap and how many follow; the
-- latest second in which it was changed; of each of the cap's hours the count; then for each of the last two minutes' its second, its 8 bytes and its slot (0: it went at once;
-- more than CAP_MARK: that much by the cap). Of a tenant and of everyone: a hash of the counts of minutes, from the
-- last one on, and `q`: the first minute that is not known to be full, the last turn given, the last minute counted in and
-- the minute in which former minutes were dropped.
local HEAD = '>I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I6I4I2I4'
local HEAD_SIZE = 80
local RECORD = '>I4c8I6'
local RECORD_SIZE = 18
local QUEUE = '>I4I6I4I4'
local ITEM_SIZE = 19
local REMEMBER_SECONDS = 120
local CLOCKS_APART_SECONDS = 60
local MAX_RECORDS = 512
local MS = { 10000, 60000, 3600000, 86400000 }
local MINUTE, HOUR, DAY = MS[2], MS[3], MS[4]
local REFUSES, PASSES = 1, 3
local NOT_HELD, HORIZON, MAX_COUNT = 65535, 168, 65535
local CAP_MARK = 2 ^ 47

local floor, max, min, sub, find = math.floor, math.max, math.min, string.sub, string.find
local pack, unpack = struct.pack, struct.unpack
local now = tonumber(ARGV[1])
local limits = { tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]) }
local limit1, limit2, limit3, limit4 = limits[1], limits[2], limits[3], limits[4]
local items = ARGV[8]
local second
local now1, now2, now3, now4, minuteNow
-- The least of what others have left that lies too far ahead, in seconds.
local ahead = math.huge

local function setClock(at)
  now, second = at, floor(at / 1000)
  now1, now2, now3, now4 = floor(at / MS[1]), floor(at / MS[2]), floor(at / MS[3]), floor(at / MS[4])
  minuteNow = now2
end
setClock(now)

-- 1-4: index of the window that is filled; 5-8: its count; 9-12: index of the last that was left; 13-16: its count; 17:
-- the last turn; 18: the first hour of the cap; 19: how many follow; 20: the latest second.
local function catchUp(user, at)
  for w = 1, 4 do
    local index = floor(at / MS[w])
    if user[w] < index then user[w], user[w + 4] = index, 0 end
  end
end

local function readUser(value)
  local user = value and { unpack(HEAD, value) }
  local isAhead = user and user[20] > second + CLOCKS_APART_SECONDS
  if isAhead then ahead = min(ahead, user[20]) end
  if user and not isAhead then
    local from = HEAD_SIZE + 1 + 2 * user[19]
    user.hours = sub(value, HEAD_SIZE + 1, from - 1)
    while from <= #value and unpack('>I4', value, from) + REMEMBER_SECONDS < second do
      from = from + RECORD_SIZE
    end
    user.records = sub(value, from)
  else
    user = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, hours = '', records = '' }
  end
  -- catchUp(user, now), for the one call that every notification pays.
  if user[1] < now1 then user[1], user[5] = now1, 0 end
  if user[2] < now2 then user[2], user[6] = now2, 0 end
  if user[3] < now3 then user[3], user[7] = now3, 0 end
  if user[4] < now4 then user[4], user[8] = now4, 0 end
  return user
end

-- Where the record of this attempt begins, or nil.
local function recordOf(records, tag)
  local at = find(records, tag, 1, true)
  while at do
    if (at - 5) % RECORD_SIZE == 0 then return at - 4 end
    at = find(records, tag, at + 1, true)
  end
  return nil
end

-- What users share: of each limit the minutes, read when they are needed, and the queue.
local queues
local users
local firstUser = tonumber(ARGV[7]) > 0 and 3 or 2

local function readAll()
  queues, users = {}, {}
  for i = 1, 2 do
    local limit = tonumber(ARGV[i + 5])
    if limit > 0 then
      local found = redis.call('HMGET', KEYS[i], 'q', minuteNow)
      local q = { key = KEYS[i], limit = limit, window = i + 4, first = 0, last = 0, lastMinute = 0, swept = 0 }
      if found[1] then q.first, q.last, q.lastMinute, q.swept = unpack(QUEUE, found[1]) end
      q.counts, q.changed = { [minuteNow] = tonumber(found[2] or 0) }, {}
      if q.swept > minuteNow + 1 then
        ahead = min(ahead, q.swept * 60)
        q.first, q.last, q.lastMinute, q.swept, q.counts[minuteNow], q.anew = 0, 0, 0, 0, 0, true
      end
      queues[#queues + 1] = q
    end
  end
  if #KEYS >= firstUser then
    local values = redis.call('MGET', _G.unpack(KEYS, firstUser))
    for i = 1, #values do users[i] = readUser(values[i]) end
  end
end

readAll()
-- By how much the caller is behind, in ms and in hours of the clock.
local behind, hoursBehind = 0, 0
if ahead < math.huge then
  local time = redis.call('TIME')
  local redisNow = tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)
  if ahead * 1000 <= redisNow + CLOCKS_APART_SECONDS * 1000 then
    behind, hoursBehind = redisNow - now, floor(redisNow / HOUR) - now3
    setClock(redisNow)
    readAll()
  end
end

local function phaseOf(number)
  return tonumber(sub(redis.sha1hex(sub(KEYS[firstUser + number - 1], #KEYS[1] + 2)), 1, 4), 16)
end

local function advance(user, from, number)
  local waits = from > now or user[17] > now
  catchUp(user, from)
  while true do
    local full
    if user[8] >= limit4 then full = 4
    elseif user[7] >= limit3 then full = 3
    elseif user[6] >= limit2 then full = 2
    elseif user[5] >= limit1 then full = 1
    else break end
    user[full + 8], user[full + 12] = user[full], user[full + 4]
    catchUp(user, (user[full] + 1) * MS[full])
    waits = true
  end
  if not waits then return now end
  local share = (user[5] * 65536 + phaseOf(number)) * MS[1] * 4
  return max(from, user[17], user[1] * MS[1] + floor(share / (limit1 * 65536 * 5)))
end

-- One that goes now whatever waits; the frontier stays where it is.
local function countAside(user)
  for w = 1, 4 do
    local index = floor(now / MS[w])
    if user[w] == index then user[w + 4] = user[w + 4] + 1
    elseif user[w + 8] == index then user[w + 12] = user[w + 12] + 1 end
  end
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

-- Which window one waits for that comes now, and its usage.
local function windowNow(user)
  for w = 4, 1, -1 do
    local index = floor(now / MS[w])
    if user[w + 8] >= index then
      return w, user[w + 8] == index and user[w + 12] or limits[w]
    end
  end
  for _, q in ipairs(queues) do
    if firstWithRoom(q) > minuteNow or q.last > now then return q.window, used(q, minuteNow) end
  end
  return 1, user[1] == floor(now / MS[1]) and user[5] or 0
end

-- The counts of the cap's hours, from user[18] on: read when they are needed.
local function hoursOf(user)
  if user.counts then return user.counts end
  local counts = {}
  local over = max(now3 - user[18], 0)
  for i = over + 1, user[19] do counts[i - over] = unpack('>I2', user.hours, 2 * i - 1) end
  user.counts, user[18] = counts, user[18] + over
  return counts
end

local function usedIn(user, hour)
  local counts = hoursOf(user)
  return counts[max(hour - user[18], 0) + 1] or 0
end

local function hasRoom(user, hour, over, share, held)
  return over == 0 or over == PASSES or held ~= NOT_HELD and now3 + held == hour or usedIn(user, hour) < share
end

local function leave(user, held)
  if held == NOT_HELD then return end
  local counts = hoursOf(user)
  local at = now3 + held - user[18] + 1
  if (counts[at] or 0) > 0 then counts[at], user.changed = counts[at] - 1, true end
end

local function countIn(user, hour, over, held)
  if over == 0 and held == NOT_HELD then return end
  if held ~= NOT_HELD and now3 + held == hour and over ~= 0 then return end
  leave(user, held)
  local counts = hoursOf(user)
  local at = max(hour - user[18], 0) + 1
  if over == 0 or at > HORIZON then return end
  for i = #counts + 1, at do counts[i] = 0 end
  counts[at] = min(counts[at] + 1, MAX_COUNT)
end

local answer = {}
local function tell(slot, user, counted)
  local n = #answer
  answer[n + 1], answer[n + 4] = slot, counted
  answer[n + 2], answer[n + 3] = windowNow(user)
end

local function tellCap(slot, user, hour, counted)
  local n = #answer
  answer[n + 1], answer[n + 2] = slot, 7
  answer[n + 3], answer[n + 4] = usedIn(user, hour), counted
end

-- Before it is counted.
local function tellGoes(user, over, asked)
  local window, usage, left = 0, 0, math.huge
  if asked then
    for w = 4, 1, -1 do
      if limits[w] - user[w + 4] < left then window, usage, left = w, user[w + 4], limits[w] - user[w + 4] end
    end
    for i = 1, #queues do
      local q = queues[i]
      local n = used(q, minuteNow)
      if q.limit - n < left then window, usage, left = q.window, n, q.limit - n end
    end
  end
  local cap = over > 0 and usedIn(user, now3) + 1 or 0
  answer[#answer + 1] = -1 - window - 8 * (cap + 65537 * usage)
end

local function remember(user, tag, slot)
  user.records = user.records .. pack(RECORD, second, tag, slot)
  user.changed = true
end

-- Whether one of this user goes at once: nobody waits, and there is room.
local function isFree(user)
  if user[17] > now or user[5] >= limit1 or user[6] >= limit2 or user[7] >= limit3 or user[8] >= limit4 then
    return false
  end
  for i = 1, #queues do
    if sharedTurn(queues[i], now) > now then return false end
  end
  return true
end

local function findTurn(user, number)
  local trial, waitsFor = {}, {}
  for i = 1, 17 do trial[i] = user[i] end
  local turn = advance(trial, now, number)
  local settled
  repeat
    settled = true
    for _, q in ipairs(queues) do
      local shared = sharedTurn(q, turn)
      if shared > turn then
        turn, waitsFor[q], settled = advance(trial, shared, number), true, false
      end
    end
  until settled
  return turn, trial, waitsFor
end

-- The cap has no room for one that could come at `at`. `had`: the turn it had, if that is remembered.
local function overCap(user, number, at, over, share, tag, expiresIn, held, had)
  local hour = floor(at / HOUR)
  if over == REFUSES then
    leave(user, held)
    return tellCap(at, user, hour, 0)
  end
  if held ~= NOT_HELD and held > 0 then
    if had then remember(user, tag, had + CAP_MARK) end
    return tellCap(had or 0, user, hour, 1)
  end
  local open = max(hour, user[18])
  while usedIn(user, open) >= share do open = open + 1 end
  local place = (usedIn(user, open) * 65536 + phaseOf(number)) * MS[1] * 4
  local turn = open * HOUR + floor(place / (share * 65536 * 5))
  local counted = open - user[18] < HORIZON and (expiresIn == 0 or turn < now + expiresIn)
  tellCap(turn, user, hour, counted and 1 or 0)
  if counted then
    countIn(user, open, over, held)
    remember(user, tag, turn + CAP_MARK)
  end
end

for position = 0, #items / ITEM_SIZE - 1 do
  local number, exempt, over, share, tag, expiresIn, held =
    unpack('>I2BBBc8I4I2', items, position * ITEM_SIZE + 1)
  if expiresIn > 0 then expiresIn = max(expiresIn - behind, 1) end
  if held ~= NOT_HELD then held = held < hoursBehind and NOT_HELD or held - hoursBehind end
  local user = users[number]
  local at = user.records ~= '' and recordOf(user.records, tag)
  local slot = at and select(3, unpack(RECORD, user.records, at))
  local had
  if at and slot > CAP_MARK then
    -- A turn that the cap gave stands only while there is none better: what the user wants may have changed.
    had = slot - CAP_MARK
    held = floor(had / HOUR) - now3
    if held < 0 then held = NOT_HELD end
    user.records, user.changed = sub(user.records, 1, at - 1) .. sub(user.records, at + RECORD_SIZE), true
    at = nil
  end
  if at then
    if slot > now then tell(slot, user, 1) else answer[#answer + 1] = -1 end
  elseif not hasRoom(user, now3, over, share, held) then
    overCap(user, number, now, over, share, tag, expiresIn, held, had)
  elseif exempt == 1 or isFree(user) then
    tellGoes(user, over, exempt ~= 1)
    if exempt == 1 then
      countAside(user)
    else
      user[5], user[6], user[7], user[8] = user[5] + 1, user[6] + 1, user[7] + 1, user[8] + 1
    end
    for i = 1, #queues do countShared(queues[i], now, false) end
    countIn(user, now3, over, held)
    remember(user, tag, 0)
  else
    local turn, trial, waitsFor = findTurn(user, number)
    if not hasRoom(user, floor(turn / HOUR), over, share, held) then
      overCap(user, number, turn, over, share, tag, expiresIn, held, had)
    else
      local counted = expiresIn == 0 or turn < now + expiresIn
      tell(turn, trial, counted and 1 or 0)
      if counted then
        for i = 1, 4 do
          user[i], user[i + 4], user[i + 8], user[i + 12] = trial[i], trial[i + 4] + 1, trial[i + 8], trial[i + 12]
        end
        user[17] = turn
        for _, q in ipairs(queues) do countShared(q, turn, waitsFor[q]) end
        countIn(user, floor(turn / HOUR), over, held)
        remember(user, tag, turn)
      end
    end
  end
end

-- Only asked: nothing above has written.
if ARGV[9] then return answer end

for i = 1, #users do
  local u = users[i]
  if u.changed then
    if u[18] < now3 then hoursOf(u) end
    local hours = u.hours
    if u.counts then
      u[19] = #u.counts
      for n = 1, u[19] do u.counts[n] = pack('>I2', u.counts[n]) end
      hours = table.concat(u.counts)
    end
    local head = pack(HEAD, u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
      u[15], u[16], u[17], u[18], u[19], max(u[20], second))
    local left = max((u[4] + 1) * DAY - now, (u[18] + u[19]) * HOUR - now, REMEMBER_SECONDS * 1000)
    redis.call('SET', KEYS[firstUser + i - 1], head .. hours .. sub(u.records, -MAX_RECORDS * RECORD_SIZE), 'PX', left)
  end
end

for _, q in ipairs(queues) do
  if q.dirty then
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
end
return answer
