-- Housekeeping: removes ended tasks, or old tombstones and confirmed keys of results.
--
-- ARGV from 5: tasks, state, ended longer ago than (microseconds), exempting label or '', how many old ones to pass over, most to remove
--           or garbage, most keys to answer, confirmed keys
-- Answers to tasks: { how many were removed, how many to pass over next time, 1 if there may be more or 0 }
--         to garbage: keys of results to delete

-- How many tasks or tombstones one call looks at.
local LOOK_MAX = 1000
local TOMBSTONE_TTL = 86400000000

local function is_exempt(t, label)
  return label ~= '' and labels_of(t)[label] ~= nil
end

local function tasks()
  local state, label = ARGV[first + 1], ARGV[first + 3]
  local skip, most = tonumber(ARGV[first + 4]), tonumber(ARGV[first + 5])
  local key = prefix .. 'done:' .. state
  local before = '(' .. int(now - tonumber(ARGV[first + 2]))
  local old = call('ZRANGE', key, '-inf', before, 'BYSCORE', 'LIMIT', skip, LOOK_MAX)
  local removed, stopped = 0, false
  fetch(old)
  for _, id in ipairs(old) do
    if removed == most then
      stopped = true
      break
    elseif is_exempt(record(id), label) then
      skip = skip + 1
    else
      remove(record(id))
      removed = removed + 1
    end
  end
  return { removed, skip, (stopped or #old == LOOK_MAX) and 1 or 0 }
end

local function garbage()
  for at = first + 2, #ARGV do
    call('ZREM', prefix .. 'garbage', ARGV[at])
  end
  local oldest = '(' .. int(now - TOMBSTONE_TTL)
  local old = call('ZRANGE', prefix .. 'tombs', '-inf', oldest, 'BYSCORE', 'LIMIT', 0, LOOK_MAX)
  send('HDEL', prefix .. 'tomb', old)
  send('ZREM', prefix .. 'tombs', old)
  -- Store handles that have not written for long, so many writes of others ago, are forgotten.
  call('ZREMRANGEBYRANK', prefix .. 'handles', 0, -10001)
  local most = tonumber(ARGV[first + 1])
  return most > 0 and call('ZRANGE', prefix .. 'garbage', 0, most - 1) or {}
end

if ARGV[first] == 'tasks' then
  return finish(tasks())
end
return finish(garbage())
