-- Registers a replica, renews it, has it take nothing more, or ends its registration.
--
-- ARGV from 5: register, id, name, ttl (microseconds), home or ''
--           or beat, id, 1 if to list what it owns or 0, most bytes of reports
--           or drain, id
--           or leave, id
-- Answers to register: 1, or 0 if the id was used before
--         to beat: { why it may not or '', owned (id, run, …), ids wished to stop, reports, 1 if it is to take
--           nothing more or 0 }; a report is { id, execution, JSON, output or nothing }
--         to drain: 1, or 0 if it is unknown or dead
--         to leave: 1

local what, replica = ARGV[first], ARGV[first + 1]
local row_key = prefix .. 'rep:' .. replica

local function register()
  if call('EXISTS', row_key) == 1 then
    return 0
  end
  local ttl = tonumber(ARGV[first + 3])
  call('HSET', row_key, 'name', ARGV[first + 2], 'ttl', int(ttl), 'beat', 0, 'exp', int(now + ttl), 'dead', 0,
    'claim', 0, 'home', ARGV[first + 4])
  call('SADD', prefix .. 'live', replica)
  call('SADD', prefix .. 'reps', replica)
  return 1
end

-- The reports for running tasks of this owner: first those that it has not been given yet, then, as a reply
-- may be lost, the outcomes that it has been given. So these never keep back what is new.
local function reports(bytes_max)
  local new, again, bytes = {}, {}, 0
  local key = prefix .. 'post:' .. replica
  local ids = call('SMEMBERS', key)
  fetch(ids)
  for _, id in ipairs(ids) do
    local row, run = call('HMGET', detail_key(id), 'rx', 're', 'rh'), int(record(id)[R])
    local list = row[3] == run and again or new
    list[#list + 1] = { id = id, execution = row[1], ended = row[2] == '1', run = run }
  end
  local told = {}
  local function tell(it)
    if bytes < bytes_max then
      local said = call('HMGET', detail_key(it.id), 'rs', 'ro')
      bytes = bytes + #said[1] + #(said[2] or '')
      told[#told + 1] = { it.id, it.execution, said[1], said[2] or nil }
      return true
    end
  end
  for _, it in ipairs(new) do
    if tell(it) then
      call('HSET', detail_key(it.id), 'rh', it.run)
      if not it.ended then
        -- A progress is told once per owner.
        call('SREM', key, it.id)
      end
    end
  end
  for _, it in ipairs(again) do
    tell(it)
  end
  return told
end

-- Ids and runs.
local function owned_by(owner)
  local ids, owned = call('SMEMBERS', prefix .. 'owner:' .. owner), {}
  fetch_moves(ids)
  for at = 1, #ids do
    owned[2 * at - 1], owned[2 * at] = ids[at], int(head_of(moved[ids[at]])[R])
  end
  return owned
end

local function beat()
  local row = call('HMGET', row_key, 'dead', 'ttl', 'drain')
  if not row[1] then
    return { 'is unknown to the store', {}, {}, {}, 0 }
  elseif row[1] == '1' then
    return { 'was declared dead or has left', {}, {}, {}, 0 }
  end
  call('HINCRBY', row_key, 'beat', 1)
  call('HSET', row_key, 'exp', int(now + tonumber(row[2])))
  local owned = ARGV[first + 2] == '1' and owned_by(replica) or {}
  local wished = call('SMEMBERS', prefix .. 'wish:' .. replica)
  return { '', owned, wished, reports(tonumber(ARGV[first + 3])), row[3] == '1' and 1 or 0 }
end

local function drain()
  if call('HGET', row_key, 'dead') ~= '0' then
    return 0
  end
  call('HSET', row_key, 'drain', 1)
  hint.wishes = true
  return 1
end

local function leave_for_good()
  if call('HGET', row_key, 'dead') == '0' then
    call('HSET', row_key, 'dead', 1)
    call('SREM', prefix .. 'live', replica)
    hint.work = true
  end
  return 1
end

if what == 'register' then
  return finish(register())
elseif what == 'beat' then
  return finish(beat())
elseif what == 'drain' then
  return finish(drain())
end
return finish(leave_for_good())
