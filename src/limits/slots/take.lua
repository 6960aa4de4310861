-- Reads what is kept, finds each of the notifications its slot, in turn, counts it there and keeps it.
queues, users = {}, {}
for i = 1, 2 do
  local limit = tonumber(ARGV[i + 5])
  if limit > 0 then queues[#queues + 1] = readQueue(i, limit) end
end
if #KEYS >= firstUser then
  local values = redis.call('MGET', _G.unpack(KEYS, firstUser))
  for i = 1, #values do users[i] = readUser(values[i]) end
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
    return tellCap(had or 0, user, hour, had and apart ~= 0 and 0 or 1)
  end
  local open = max(hour, user[18])
  while usedIn(user, open) >= share do open = open + 1 end
  local place = (usedIn(user, open) * 65536 + phaseOf(number)) * MS[1] * 4
  local turn = open * HOUR + floor(place / (share * 65536 * 5))
  local counted = apart == 0 and open - user[18] < HORIZON and (expiresIn == 0 or turn < now + expiresIn)
  tellCap(turn, user, hour, counted and 1 or 0)
  if counted then
    countIn(user, open, over, held)
    remember(user, tag, turn + CAP_MARK)
  end
end

for position = 0, #items / ITEM_SIZE - 1 do
  local number, exempt, over, share, tag, expiresIn, held =
    unpack('>I2BBBc8I4I2', items, position * ITEM_SIZE + 1)
  if expiresIn > 0 then expiresIn = max(expiresIn - apart, 1) end
  if held ~= NOT_HELD then held = held < hoursApart and NOT_HELD or held - hoursApart end
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
      local counted = apart == 0 and (expiresIn == 0 or turn < now + expiresIn)
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

if apart ~= 0 then answer[#answer + 1] = redisNow end
-- Only asked: nothing above has written.
if ARGV[9] ~= '' then return answer end

for i = 1, #users do
  if users[i].changed then writeUser(KEYS[firstUser + i - 1], users[i]) end
end
for _, q in ipairs(queues) do
  if q.dirty then writeQueue(q) end
end
return answer
