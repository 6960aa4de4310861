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
local SIZES = { 10000, 60000, 3600000, 86400000 }

local now = tonumber(ARGV[1])
local limits = { tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]) }
local tenantLimit = tonumber(ARGV[6])
local items = ARGV[7]
local second = math.floor(now / 1000)
local current = {}
for w = 1, 4 do
  current[w] = math.floor(now / SIZES[w])
end

-- A window that lies ahead was opened by a caller whose clock is ahead: it counts on, or a limit could be passed by
-- asking two callers in turn.
local function readUser(key)
  local user = { index = {}, count = {}, waiting = 0, records = '', changed = false }
  local value = redis.call('GET', key)
  local held = value and { struct.unpack(HEAD, value) } or {}
  for w = 1, 4 do
    local index = held[2 * w - 1] or 0
    if index >= current[w] then
      user.index[w] = index
      user.count[w] = held[2 * w]
    else
      user.index[w] = current[w]
      user.count[w] = 0
    end
  end
  if value then
    if held[3] >= current[2] then
      user.waiting = held[9]
    end
    local from = HEAD_SIZE + 1
    while from <= #value and struct.unpack('>I4', value, from) + REMEMBER_SECONDS < second do
      from = from + RECORD_SIZE
    end
    user.records = string.sub(value, from)
  end
  return user
end

local function remembers(user, tag)
  local at = string.find(user.records, tag, 1, true)
  while at do
    if (at - 5) % RECORD_SIZE == 0 then
      return true
    end
    at = string.find(user.records, tag, at + 1, true)
  end
  return false
end

local users = {}
for i = 2, #KEYS do
  users[i - 1] = readUser(KEYS[i])
end
local tenant = { index = current[2], count = 0, waiting = 0, changed = false }
if tenantLimit > 0 then
  local value = redis.call('GET', KEYS[1])
  if value then
    local index, count, waiting = struct.unpack('>I4I4I4', value)
    if index >= tenant.index then
      tenant = { index = index, count = count, waiting = waiting, changed = false }
    end
  end
end

local answer = { 0 }
for position = 0, #items / 11 - 1 do
  local number, exempt, tag = struct.unpack('>I2Bc8', items, position * 11 + 1)
  local user = users[number]
  if remembers(user, tag) then
    answer[1] = answer[1] + 1
  else
    local count = user.count
    local full = 0
    if exempt == 0 then
      for w = 4, 1, -1 do
        if full == 0 and count[w] >= limits[w] then
          full = w
        end
      end
      if full == 0 and tenantLimit > 0 and tenant.count >= tenantLimit then
        full = 5
      end
    end
    if full == 0 then
      for w = 1, 4 do
        count[w] = count[w] + 1
      end
      user.records = user.records .. struct.pack(RECORD, second, tag)
      user.changed = true
      tenant.count = tenant.count + 1
      tenant.changed = true
    else
      local owner = full == 5 and tenant or user
      local n = #answer
      answer[n + 1] = position
      answer[n + 2] = full
      for w = 1, 4 do
        answer[n + 2 + w] = count[w]
      end
      answer[n + 7] = tenant.count
      answer[n + 8] = owner.waiting
      owner.waiting = owner.waiting + 1
      owner.changed = true
    end
  end
end

for i, user in ipairs(users) do
  if user.changed then
    local x, c = user.index, user.count
    local records = string.sub(user.records, -MAX_RECORDS * RECORD_SIZE)
    local head = struct.pack(HEAD, x[1], c[1], x[2], c[2], x[3], c[3], x[4], c[4], user.waiting)
    local left = math.max((x[4] + 1) * SIZES[4] - now, REMEMBER_SECONDS * 1000)
    redis.call('SET', KEYS[i + 1], head .. records, 'PX', string.format('%d', left))
  end
end
if tenantLimit > 0 and tenant.changed then
  local value = struct.pack('>I4I4I4', tenant.index, tenant.count, tenant.waiting)
  redis.call('SET', KEYS[1], value, 'PX', 2 * SIZES[2])
end
return answer
