-- The hourly cap of one user (cap.ts).
local HORIZON, MAX_COUNT = 168, 65535

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
