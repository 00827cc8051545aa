-- Looks for contradictions between tasks and the indexes, a part at a time; writes nothing.
--
-- ARGV from 5: tasks, page to look at or behind      every task is in the indexes of its state
--           or sizes                                and the indexes hold nothing else
--           or run, spec or res, cursor             what is beside a record belongs to one
-- Answers { page or cursor to go on from, '' at the end, a sentence for each contradiction }
--
-- The first two together show that every id is in exactly one of the places where a task can stand: each is in its own,
-- and together these have as many members as there are tasks.

-- How many parts one call looks at, or so.
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

-- The place of the first entry of a list that is not before this.
local function lower_bound(key, member)
  local low, high = 0, call('LLEN', key)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if call('LINDEX', key, middle) < member then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

-- By time: the entries of the list of successes that are of then, as a set.
local ended_then = {}
local function ended_with(t)
  local order = ended_order(t[FA])
  local entries = ended_then[order]
  if not entries then
    entries = {}
    ended_then[order] = entries
    local key = prefix .. SUCCEEDED
    local place = lower_bound(key, order)
    repeat
      local part = call('LRANGE', key, place, place + LOOK_MAX - 1)
      place = place + LOOK_MAX
      for at = 1, #part do
        entries[part[at]] = true
      end
    until #part < LOOK_MAX or sub(part[#part], 1, ENDED_HEAD) ~= order
  end
  return entries[order .. t.id]
end

-- Looks where the order says that it must be.
local function stands_in_list(t)
  if t[S] == 4 then
    return ended_with(t)
  end
  local key, member = prefix .. 'due:' .. t.lane, ready_member(t)
  return t[S] == 1 and not moved[t.id] and call('LINDEX', key, lower_bound(key, member)) == member
end

-- What is beside the record is there if the record says so.
local function check_parts(t)
  if call('HEXISTS', prefix .. 'spec', t.id) ~= t[SEP] or (t.spec == '') ~= (t[SEP] == 1) then
    problem('the spec of task ', t.id, ' is kept wrongly')
  end
  if call('HEXISTS', prefix .. 'res', t.id) ~= (t[RES] == 1 and 1 or 0) then
    problem('the inline result of task ', t.id, ' is kept wrongly')
  end
  if call('EXISTS', detail_key(t.id)) ~= t[DET] then
    problem('the details of task ', t.id, ' are kept wrongly')
  end
end

local function check(id, number)
  local t = record(id)
  if not t then
    return problem('task ', id, ' is on a page and has no record')
  end
  local s, owner = t[S], t[OW] == NOBODY and '' or t[OW]
  for _, state in ipairs({ 0, 3, 5, 6 }) do
    expect(id, 'state:' .. state, id, s == state and t[N] or nil)
  end
  for _, state in ipairs({ 4, 5, 6 }) do
    expect(id, 'done:' .. state, id, s == state and t[LISTED] == 0 and t[FA] or nil)
  end
  local owned = s == 2 or s == 3
  expect(id, 'deadlines', id, s < 2 and t[DL] ~= NEVER and t[DL] or nil)
  if call('SISMEMBER', prefix .. 'owner:' .. owner, id) ~= (owned and 1 or 0) then
    problem('task ', id, ' in state ', s, ' is kept wrongly by its owner')
  end
  if t[N] ~= number then
    problem('task ', id, ' stands in the place of number ', int(number), ' and has ', int(t[N]))
  end
  if owned and call('SISMEMBER', prefix .. 'owners', owner) == 0 then
    problem('the owner of task ', id, ' is missing in owners')
  end
  if call('SISMEMBER', prefix .. 'wish:' .. owner, id) ~= (s == 2 and t[C] or 0) then
    problem('the wish to stop task ', id, ' is kept wrongly')
  end
  local ready = call('ZSCORE', prefix .. 'ready:' .. t.lane, ready_member(t))
  local sched = call('ZSCORE', prefix .. 'sched:' .. t.lane, sched_member(t))
  local due = s == 1 and t[LISTED] == 1
  if t[LISTED] == 1 and not stands_in_list(t) then
    problem('task ', id, ' in state ', s, ' is missing in its list')
  end
  if (due and 1 or 0) + (ready and 1 or 0) + (sched and 1 or 0) ~= (s == 1 and 1 or 0) then
    local function said(is, name)
      return (is and '' or 'not ') .. name
    end
    problem('task ', id, ' in state ', s, ' is ', said(due, 'listed, '), said(ready, 'ready, '), said(sched, 'sched'))
  elseif sched and tonumber(sched) ~= t[RA] then
    problem('task ', id, ' is scheduled at ', sched, ' instead of ', int(t[RA]))
  end
  if s == 1 and call('SISMEMBER', prefix .. 'lanes', t.lane) == 0 then
    problem('the lane of task ', id, ' is missing in lanes')
  end
  check_parts(t)
end

local function tasks()
  local page = call('ZRANGE', prefix .. 'pages', ARGV[first + 1], '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
  if not page then
    return ''
  end
  local ids, there = call('LRANGE', prefix .. 'page:' .. page, 0, -1), 0
  fetch(ids)
  for at = 1, #ids do
    if ids[at] ~= '' then
      there = there + 1
      check(ids[at], page * PAGE + at)
    end
  end
  if tonumber(call('HGET', prefix .. 'alive', page) or 0) ~= there then
    problem('page ', page, ' has ', there, ' tasks and counts others')
  end
  return int(page + 1)
end

local function compare(what, is, should)
  if is ~= should then
    problem(what, ' is ', int(is), ' instead of ', int(should))
  end
end

-- How many tasks have an owner, and how many of them run in each queue.
local function owned_by_all()
  local owned, running = 0, {}
  for _, owner in ipairs(call('SMEMBERS', prefix .. 'owners')) do
    local ids = call('SMEMBERS', prefix .. 'owner:' .. owner)
    owned = owned + #ids
    fetch(ids)
    for at = 1, #ids do
      local t = record(ids[at])
      if t and t[S] == 2 then
        local queue = queue_of(t.lane)
        running[queue] = (running[queue] or 0) + 1
      end
    end
  end
  return owned, running
end

-- How many tasks stand in a list.
local function listed(list)
  return call('LLEN', prefix .. list) - (call('HGET', prefix .. 'gone', list) or 0)
end

local function sizes()
  local waiting, counted = {}, {}
  local owned, running = owned_by_all()
  for _, lane in ipairs(call('SMEMBERS', prefix .. 'lanes')) do
    local queue = sub(lane, 1, string.find(lane, '\n', 1, true) - 1)
    waiting[queue] = (waiting[queue] or 0) + size('ready:' .. lane) + size('sched:' .. lane)
      + listed('due:' .. lane)
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
    compare('the count of running tasks of ' .. queue, tonumber(row[3] or 0), running[queue] or 0)
  end
  local total = 0
  for state = 0, 6 do
    total = total + counted[state]
    if state == 0 or state == 3 or state >= 5 then
      compare('the size of state:' .. state, size('state:' .. state), counted[state])
    end
    if state >= 4 then
      local elsewhere = state == 4 and listed(SUCCEEDED) or 0
      compare('the size of done:' .. state, size('done:' .. state) + elsewhere, counted[state])
    end
  end
  local alive = 0
  for _, tasks in ipairs(call('HVALS', prefix .. 'alive')) do
    alive = alive + tasks
  end
  compare('how many tasks are on pages', alive, total)
  compare('the size of pages', size('pages'), call('HLEN', prefix .. 'alive'))
  compare('the size of rec', call('HLEN', prefix .. 'rec'), total)
  compare('how many tasks have an owner', owned, counted[2] + counted[3])
  compare('the size of tombs', size('tombs'), call('HLEN', prefix .. 'tomb'))
  return ''
end

local function parts(key, place)
  local found = call('HSCAN', prefix .. key, ARGV[first + 1], 'COUNT', LOOK_MAX)
  for at = 1, #found[2], 2 do
    local t = record(found[2][at])
    if not t or place and t[place] ~= 1 then
      problem(key, ' holds something of task ', found[2][at], ', which has nothing there')
    end
  end
  return found[1] ~= '0' and found[1] or ''
end

local LOOKS = {
  tasks = tasks,
  sizes = sizes,
  run = function() return parts('run') end,
  spec = function() return parts('spec', SEP) end,
  res = function() return parts('res', RES) end,
}
local go_on = LOOKS[ARGV[first]]()
return { go_on, problems }
