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

-- The task of an entry of the list of those that have succeeded; nil if it has left.
local function succeeded_of(member)
  local t = record(sub(member, ENDED_HEAD + 1))
  return t and t[S] == 4 and t[LISTED] == 1 and t[FA] == ended_at(member) and t or nil
end

-- Removes from the front of that list, up to `most`; what is spared goes into done:4, for the list is to have an end.
-- Answers how many were removed, and 1 if there may be more or 0.
local function succeeded_tasks(before, label, most)
  local members, ids = call('LRANGE', prefix .. SUCCEEDED, 0, LOOK_MAX - 1), {}
  for at = 1, #members do
    ids[at] = sub(members[at], ENDED_HEAD + 1)
  end
  fetch(ids)
  local looked, removed = 0, 0
  while looked < #members and removed < most and ended_at(members[looked + 1]) < before do
    looked = looked + 1
    local t = succeeded_of(members[looked])
    if t and is_exempt(t, label) then
      leave_ended(t)
      plan('ZADD', 'done:4', int(t[FA]), t.id)
    elseif t then
      remove(t)
      removed = removed + 1
    end
  end
  call('LTRIM', prefix .. SUCCEEDED, looked, -1)
  stray(SUCCEEDED, -looked)
  return removed, (looked == LOOK_MAX or removed == most) and 1 or 0
end

local function tasks()
  local state, label = ARGV[first + 1], ARGV[first + 3]
  local skip, most = tonumber(ARGV[first + 4]), tonumber(ARGV[first + 5])
  local key, time = prefix .. 'done:' .. state, now - tonumber(ARGV[first + 2])
  local old = call('ZRANGE', key, '-inf', '(' .. int(time), 'BYSCORE', 'LIMIT', skip, LOOK_MAX)
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
  if state == '4' and not stopped and #old < LOOK_MAX then
    local others, more = succeeded_tasks(time, label, most - removed)
    return { removed + others, skip, more }
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
