-- The windows of one user: where the next turn is, and what is counted (place.ts).
local function catchUp(user, at)
  for w = 1, 4 do
    local index = floor(at / MS[w])
    if user[w] < index then user[w], user[w + 4] = index, 0 end
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
