-- What is told of each (asked.lua).
local answer = {}

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

local function tell(slot, user, counted)
  local n = #answer
  answer[n + 1], answer[n + 4] = slot, apart == 0 and counted or 0
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
