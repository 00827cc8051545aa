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

local function first_of(lane)
  local found = {}
  for _, member in ipairs(call('ZRANGE', prefix .. 'ready:' .. lane, 0, most - 1)) do
    local rank, due, n = struct.unpack('>I4I8I8', member)
    found[#found + 1] = { id = string.sub(member, READY_HEAD + 1), rank = rank, due = due - 4503599627370496, n = n }
  end
  local key = prefix .. 'sched:' .. lane
  local due = call('ZRANGE', key, '-inf', now_text, 'BYSCORE', 'LIMIT', 0, DUE_MAX, 'WITHSCORES')
  for at = 1, #due, 2 do
    local rank, n = struct.unpack('>I4I8', due[at])
    found[#found + 1] = { id = string.sub(due[at], SCHED_HEAD + 1), rank = rank, due = tonumber(due[at + 1]), n = n }
  end
  if #due > 0 then
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
    local queue, kind = string.sub(name, 1, at - 1), string.sub(name, at + 1)
    if kinds[kind] and (any_queue or queues[queue]) and call('HGET', prefix .. 'queue:' .. queue, 'paused') ~= '1' then
      lanes[#lanes + 1] = { queue, kind, first_of(name) }
    end
  end
end
return { now_text, lanes }
