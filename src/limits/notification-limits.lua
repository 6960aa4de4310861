-- Reserves for a chunk of one tenant's notifications: each is counted in all windows of its user and its tenant, or in
-- none. Windows are fixed and aligned to the clock, the caller's clock: Redis's own is not asked.
--
-- KEYS[1]     the tenant
-- KEYS[2..]   the users
-- ARGV[1]     now, in ms
-- ARGV[2..5]  how many a user's windows allow: 10 seconds, minute, hour, day
-- ARGV[6]     how many the tenant's minute allows, 0 for no limit
-- ARGV[7]     the notifications, 11 bytes each: number of the user's key (from 1, after the tenant's), 1 if it is never
--             refused, and 8 bytes that tell this attempt for this notification from others
--
-- Answers a flat list: how many were reserved before (a chunk that comes again is not counted again), then for each
-- refused one 8 numbers: position (from 0), window (1-4 the user's, 5 the tenant's), the usage of the user's four
-- windows, that of the tenant's, and how many were refused before it for the same reason's owner in this minute.
--
-- A user's value: index and count of each window, the number refused in the minute, then for each reservation of the
-- last two minutes its second and its 8 bytes.
local HEAD = '>I4I4I4I4I4I4I4I4I4'
local HEAD_SIZE = 36
local RECORD = '>I4c8'
local RECORD_SIZE = 12
local REMEMBER_SECONDS = 120
local MAX_RECORDS = 128
local MINUTE, DAY = 60000, 86400000

local floor, sub, find = math.floor, string.sub, string.find
local pack, unpack = struct.pack, struct.unpack
local now = tonumber(ARGV[1])
local limit1, limit2, limit3, limit4 = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local tenantLimit = tonumber(ARGV[6])
local items = ARGV[7]
local second = floor(now / 1000)
local now1, now2, now3, now4 = floor(now / 10000), floor(now / MINUTE), floor(now / 3600000), floor(now / DAY)

-- A window that lies ahead was opened by a caller whose clock is ahead: it counts on, or a limit could be passed by
-- asking two callers in turn.
local function readUser(value)
  if not value then
    return { now1, 0, now2, 0, now3, 0, now4, 0, 0, records = '' }
  end
  local i1, c1, i2, c2, i3, c3, i4, c4, waiting = unpack(HEAD, value)
  if i1 < now1 then i1, c1 = now1, 0 end
  if i2 < now2 then i2, c2, waiting = now2, 0, 0 end
  if i3 < now3 then i3, c3 = now3, 0 end
  if i4 < now4 then i4, c4 = now4, 0 end
  local from = HEAD_SIZE + 1
  while from <= #value and unpack('>I4', value, from) + REMEMBER_SECONDS < second do
    from = from + RECORD_SIZE
  end
  return { i1, c1, i2, c2, i3, c3, i4, c4, waiting, records = sub(value, from) }
end

local function remembers(records, tag)
  local at = find(records, tag, 1, true)
  while at do
    if (at - 5) % RECORD_SIZE == 0 then return true end
    at = find(records, tag, at + 1, true)
  end
  return false
end

local values = redis.call('MGET', _G.unpack(KEYS))
local users = {}
for i = 2, #KEYS do
  users[i - 1] = readUser(values[i])
end
local tenant = { now2, 0, 0 }
if tenantLimit > 0 and values[1] then
  local index, count, waiting = unpack('>I4I4I4', values[1])
  if index >= now2 then tenant = { index, count, waiting } end
end

-- The number of the longest window that is full, or nil.
local function fullWindow(user)
  if user[8] >= limit4 then return 4 end
  if user[6] >= limit3 then return 3 end
  if user[4] >= limit2 then return 2 end
  if user[2] >= limit1 then return 1 end
  if tenantLimit > 0 and tenant[2] >= tenantLimit then return 5 end
  return nil
end

local answer = { 0 }
for position = 0, #items / 11 - 1 do
  local number, exempt, tag = unpack('>I2Bc8', items, position * 11 + 1)
  local user = users[number]
  if user.records ~= '' and remembers(user.records, tag) then
    answer[1] = answer[1] + 1
  else
    local full = exempt == 0 and fullWindow(user)
    if full then
      local ahead
      if full == 5 then
        ahead = tenant[3]
        tenant[3] = ahead + 1
        tenant.changed = true
      else
        ahead = user[9]
        user[9] = ahead + 1
        user.changed = true
      end
      local n = #answer
      answer[n + 1], answer[n + 2] = position, full
      answer[n + 3], answer[n + 4], answer[n + 5], answer[n + 6] = user[2], user[4], user[6], user[8]
      answer[n + 7], answer[n + 8] = tenant[2], ahead
    else
      user[2], user[4], user[6], user[8] = user[2] + 1, user[4] + 1, user[6] + 1, user[8] + 1
      user.records = user.records .. pack(RECORD, second, tag)
      user.changed = true
      tenant[2] = tenant[2] + 1
      tenant.changed = true
    end
  end
end

for i = 1, #users do
  local u = users[i]
  if u.changed then
    local head = pack(HEAD, u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9])
    local left = math.max((u[7] + 1) * DAY - now, REMEMBER_SECONDS * 1000)
    redis.call('SET', KEYS[i + 1], head .. sub(u.records, -MAX_RECORDS * RECORD_SIZE), 'PX', left)
  end
end
if tenantLimit > 0 and tenant.changed then
  redis.call('SET', KEYS[1], pack('>I4I4I4', tenant[1], tenant[2], tenant[3]), 'PX', 2 * MINUTE)
end
return answer
