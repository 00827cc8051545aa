-- Reads what could be claimed next: the first due tasks of each lane that is asked for and not paused.
--
-- ARGV from 5: most tasks of a lane, how many kinds, the kinds, the queues (none: all)
-- Answers { now, lanes }; a lane is { queue, kind, { id, priority, run_at, insertion number, … } }

-- Most tasks of a lane that have become due since the last claim and are looked at.
local DUE_MAX = 10000

local most, kind_count = tonumber(ARGV[first]), tonumber(ARGV[first + 1])
local kinds, queues, any_queue = {}, {}, true
for at = first + 2, #ARGV do
  if at < first + 2 + kind_count then
    kinds[ARGV[at]] = true
  else
    queues[ARGV[at]] = true
    any_queue = false
  end
end

local function is_before(a, b)
  if a.rank ~= b.rank then
    return a.rank < b.rank
  elseif a.due ~= b.due then
    return a.due < b.due
  end
  return a.n < b.n
end

-- The first of a lane's list.
local function first_listed(lane)
  local gone = tonumber(call('HGET', prefix .. 'gone', 'due:' .. lane) or 0)
  local members = call('LRANGE', prefix .. 'due:' .. lane, 0, most + math.min(gone, DUE_MAX) - 1)
  if gone == 0 then
    return members
  end
  local ids, there = {}, {}
  for at = 1, #members do
    ids[at] = sub(members[at], READY_HEAD + 1)
  end
  fetch(ids)
  for at = 1, #members do
    if is_listed(members[at]) then
      there[#there + 1] = members[at]
    end
  end
  return there
end

local function first_of(lane)
  local found = {}
  local listed, ready = first_listed(lane), call('ZRANGE', prefix .. 'ready:' .. lane, 0, most - 1)
  for _, members in ipairs({ listed, ready }) do
    for _, member in ipairs(members) do
      local rank, due, n = struct.unpack('>I4I8I8', member)
      found[#found + 1] = { id = sub(member, READY_HEAD + 1), rank = rank, due = due - 4503599627370496, n = n }
    end
  end
  local key = prefix .. 'sched:' .. lane
  local due = call('ZRANGE', key, '-inf', now_text, 'BYSCORE', 'LIMIT', 0, DUE_MAX, 'WITHSCORES')
  for at = 1, #due, 2 do
    local rank, n = struct.unpack('>I4I8', due[at])
    found[#found + 1] = { id = sub(due[at], SCHED_HEAD + 1), rank = rank, due = tonumber(due[at + 1]), n = n }
  end
  if #due > 0 or #listed > 0 and #ready > 0 then
    table.sort(found, is_before)
  end
  local told = {}
  for at = 1, math.min(most, #found) do
    local it = found[at]
    for _, value in ipairs({ it.id, int(2147483647 - it.rank), int(it.due), int(it.n) }) do
      told[#told + 1] = value
    end
  end
  return told
end

local lanes = {}
if most > 0 then
  for _, name in ipairs(call('SMEMBERS', prefix .. 'lanes')) do
    local at = string.find(name, '\n', 1, true)
    local queue, kind = sub(name, 1, at - 1), sub(name, at + 1)
    if kinds[kind] and (any_queue or queues[queue]) and call('HGET', prefix .. 'queue:' .. queue, 'paused') ~= '1' then
      lanes[#lanes + 1] = { queue, kind, first_of(name) }
    end
  end
end
return { now_text, lanes }
