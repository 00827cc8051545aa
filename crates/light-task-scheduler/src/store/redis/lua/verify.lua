-- Looks for contradictions between tasks and the indexes, a part at a time; writes nothing.
--
-- ARGV from 5: tasks, insertion number above which to look      every task is in the indexes of its state
--           or sizes                                            and the indexes hold nothing else
-- Answers { insertion number to go on above, '' at the end, a sentence for each contradiction }
--
-- Both together show that every id is in exactly one of the places where a task can stand: each is in its own,
-- and together these have as many members as there are tasks.

-- How many tasks one call looks at.
local LOOK_MAX = 1000

local problems = {}
local function problem(...)
  problems[#problems + 1] = table.concat({ ... })
end

local function size(key)
  return call('ZCARD', prefix .. key)
end

-- Compares the score of a member with the one it should have; nil: it should not be there.
local function expect(id, key, member, score)
  local is = call('ZSCORE', prefix .. key, member)
  if score == nil and is then
    problem('task ', id, ' is in ', key, ' and should not be')
  elseif score ~= nil and not is then
    problem('task ', id, ' is missing in ', key)
  elseif score ~= nil and tonumber(is) ~= tonumber(score) then
    problem('task ', id, ' is in ', key, ' at ', is, ' instead of ', score)
  end
end

-- What is beside the record is there if the record says so.
local function check_parts(t)
  if call('HEXISTS', prefix .. 'spec', t.id) == 0 then
    problem('task ', t.id, ' has no spec')
  end
  if call('HEXISTS', prefix .. 'res', t.id) ~= t[RES] then
    problem('the inline result of task ', t.id, ' is kept wrongly')
  end
  if call('EXISTS', detail_key(t.id)) ~= t[DET] then
    problem('the details of task ', t.id, ' are kept wrongly')
  end
end

local function check(id)
  local t = record(id)
  if not t then
    return problem('task ', id, ' is in all and has no record')
  end
  local s, owner = t[S], t[OW] == NOBODY and '' or t[OW]
  for _, state in ipairs({ 0, 3, 5, 6 }) do
    expect(id, 'state:' .. state, id, s == state and t[N] or nil)
  end
  for _, state in ipairs({ 4, 5, 6 }) do
    expect(id, 'done:' .. state, id, s == state and t[FA] or nil)
  end
  local owned = s == 2 or s == 3
  if call('SISMEMBER', prefix .. 'running:' .. queue_of(t.lane), id) ~= (s == 2 and 1 or 0) then
    problem('task ', id, ' in state ', s, ' is kept wrongly in running')
  end
  expect(id, 'deadlines', id, s < 2 and t[DL] ~= NEVER and t[DL] or nil)
  if tonumber(call('HGET', prefix .. 'owner:' .. owner, id) or -1) ~= (owned and t[R] or -1) then
    problem('task ', id, ' in state ', s, ' is kept wrongly by its owner')
  end
  expect(id, 'all', id, t[N])
  if owned and call('SISMEMBER', prefix .. 'owners', owner) == 0 then
    problem('the owner of task ', id, ' is missing in owners')
  end
  if call('SISMEMBER', prefix .. 'wish:' .. owner, id) ~= (s == 2 and t[C] or 0) then
    problem('the wish to stop task ', id, ' is kept wrongly')
  end
  local ready = call('ZSCORE', prefix .. 'ready:' .. t.lane, ready_member(t))
  local sched = call('ZSCORE', prefix .. 'sched:' .. t.lane, sched_member(t))
  if (ready and 1 or 0) + (sched and 1 or 0) ~= (s == 1 and 1 or 0) then
    local is = (ready and '' or 'not ') .. 'ready and ' .. (sched and '' or 'not ') .. 'sched'
    problem('task ', id, ' in state ', s, ' is in ', is)
  elseif sched and tonumber(sched) ~= t[RA] then
    problem('task ', id, ' is scheduled at ', sched, ' instead of ', int(t[RA]))
  end
  if s == 1 and call('SISMEMBER', prefix .. 'lanes', t.lane) == 0 then
    problem('the lane of task ', id, ' is missing in lanes')
  end
  check_parts(t)
end

local function tasks()
  local above = '(' .. ARGV[first + 1]
  local found = call('ZRANGE', prefix .. 'all', above, '+inf', 'BYSCORE', 'LIMIT', 0, LOOK_MAX, 'WITHSCORES')
  for at = 1, #found, 2 do
    check(found[at])
  end
  return #found == 2 * LOOK_MAX and int(tonumber(found[#found])) or ''
end

local function compare(what, is, should)
  if is ~= should then
    problem(what, ' is ', int(is), ' instead of ', int(should))
  end
end

local function sizes()
  local waiting, counted = {}, {}
  for _, lane in ipairs(call('SMEMBERS', prefix .. 'lanes')) do
    local queue = string.sub(lane, 1, string.find(lane, '\n', 1, true) - 1)
    waiting[queue] = (waiting[queue] or 0) + size('ready:' .. lane) + size('sched:' .. lane)
  end
  for state = 0, 6 do
    counted[state] = 0
  end
  for _, queue in ipairs(call('SMEMBERS', prefix .. 'queues')) do
    local row = call('HMGET', prefix .. 'count:' .. queue, '0', '1', '2', '3', '4', '5', '6')
    for state = 0, 6 do
      counted[state] = counted[state] + tonumber(row[state + 1] or 0)
    end
    compare('the count of waiting tasks of ' .. queue, tonumber(row[2] or 0), waiting[queue] or 0)
    compare('the count of running tasks of ' .. queue, tonumber(row[3] or 0),
      call('SCARD', prefix .. 'running:' .. queue))
  end
  local total, owned = 0, 0
  for state = 0, 6 do
    total = total + counted[state]
    if state == 0 or state == 3 or state >= 5 then
      compare('the size of state:' .. state, size('state:' .. state), counted[state])
    end
    if state >= 4 then
      compare('the size of done:' .. state, size('done:' .. state), counted[state])
    end
  end
  for _, owner in ipairs(call('SMEMBERS', prefix .. 'owners')) do
    owned = owned + call('HLEN', prefix .. 'owner:' .. owner)
  end
  compare('the size of all', size('all'), total)
  compare('the size of rec', call('HLEN', prefix .. 'rec'), total)
  compare('the size of spec', call('HLEN', prefix .. 'spec'), total)
  compare('how many tasks have an owner', owned, counted[2] + counted[3])
  compare('the size of tombs', size('tombs'), call('HLEN', prefix .. 'tomb'))
  return ''
end

local go_on = ARGV[first] == 'tasks' and tasks() or ARGV[first] == 'sizes' and sizes() or ''
return { go_on, problems }
