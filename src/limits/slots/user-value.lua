-- What is kept of a user, as bytes: of each window the index of the one that is filled, which may lie ahead, its count,
-- the index and count of the last that was left because it was full; the last turn given; the first hour of the cap and how
-- many follow; the latest second in which it was changed; of each of the cap's hours the count; then for each of the last
-- two minutes' its second, its 8 bytes and its slot (0: it went at once; more than CAP_MARK: that much by the cap).
local HEAD = '>I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I6I4I2I4'
local HEAD_SIZE = 80
local RECORD = '>I4c8I6'
local RECORD_SIZE = 18
local REMEMBER_SECONDS = 120
local MAX_RECORDS = 512
local CAP_MARK = 2 ^ 47

-- 1-4: index of the window that is filled; 5-8: its count; 9-12: index of the last that was left; 13-16: its count; 17:
-- the last turn; 18: the first hour of the cap; 19: how many follow; 20: the latest second.
local function readUser(value)
  local user = value and { unpack(HEAD, value) }
  if user and user[20] <= redisSecond + CLOCKS_APART_SECONDS then
    local from = HEAD_SIZE + 1 + 2 * user[19]
    user.hours = sub(value, HEAD_SIZE + 1, from - 1)
    while from <= #value and unpack('>I4', value, from) + REMEMBER_SECONDS < second do
      from = from + RECORD_SIZE
    end
    user.records = sub(value, from)
  else
    user = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, hours = '', records = '' }
  end
  -- catchUp(user, now) of user-turns.lua, for the one call that every notification pays.
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

local function remember(user, tag, slot)
  user.records = user.records .. pack(RECORD, second, tag, slot)
  user.changed = true
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

local function writeUser(key, u)
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
  redis.call('SET', key, head .. hours .. sub(u.records, -MAX_RECORDS * RECORD_SIZE), 'PX', left)
end
