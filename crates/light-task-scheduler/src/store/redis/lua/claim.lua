-- Takes due tasks for a replica, in order, within each queue's limit, rate and pause.
--
-- ARGV from 7: replica, number, limit, 1 if this goes on with a claim of that number or 0,
--   how many kinds, the kinds, how many queues, the queues (none: all), then '' for any task, or how many
--   tasks to choose among, and their ids
-- Answers { why the replica may not claim or '', 1 if to be called again at once or 0, tasks (see `tell`),
--   expired ids, next_at or '' }
--
-- Overdue tasks fail and delayed ones become ready a bounded number at a time; until that is done nothing is
-- claimed, so that a claim never sees half of the order: it says that it is to be called again.

local EXPIRE_MAX = 1000
local PROMOTE_MAX = 2000
-- How many entries of a list are looked at together.
local TRIM_AT_ONCE = 500
-- Fewest candidates read from a lane at a time.
local READ_AHEAD = 16

local replica, number, limit = ARGV[first], ARGV[first + 1], tonumber(ARGV[first + 2])
local goes_on = ARGV[first + 3] == '1'

local function names(at)
  local set, size = {}, tonumber(ARGV[at])
  for name = at + 1, at + size do
    set[ARGV[name]] = true
  end
  return set, size, at + size + 1
end
local kinds, _, after = names(first + 4)
local queues, queue_count, among_at = names(after)
local among = ARGV[among_at] ~= '' and among_at + 1 or nil

-- The first time of a key that is in order by time; nil if it has none.
local function soonest(key)
  return tonumber(call('ZRANGE', prefix .. key, 0, 0, 'WITHSCORES')[2])
end

local function has_passed(time)
  return time and time <= now
end

local expired, next_deadline = {}, soonest('deadlines')
-- Fails what is overdue; whether there is more.
local function expire_overdue()
  if not has_passed(next_deadline) then
    return false
  end
  local key = prefix .. 'deadlines'
  local overdue = call('ZRANGE', key, '-inf', now_text, 'BYSCORE', 'LIMIT', 0, EXPIRE_MAX)
  fetch(overdue)
  for at = 1, #overdue do
    expire(record(overdue[at]))
    expired[#expired + 1] = overdue[at]
  end
  flush()
  next_deadline = soonest('deadlines')
  return has_passed(next_deadline)
end

local gates = {}
-- What a queue lets through: free slots, free permits.
local function gate(queue)
  if gates[queue] then
    return gates[queue]
  end
  local row = call('HMGET', prefix .. 'queue:' .. queue, 'paused', 'limit', 'interval', 'window', 'tat')
  local it = { queue = queue, paused = row[1] == '1', slots = math.huge, permits = math.huge }
  if row[2] then
    it.slots = tonumber(row[2]) - (call('HGET', prefix .. 'count:' .. queue, '2') or 0)
  end
  if row[3] then
    it.interval, it.window = tonumber(row[3]), tonumber(row[4])
    -- A clock that was stepped back must not block the queue: the debt is never more than a full bucket.
    it.tat = math.min(math.max(tonumber(row[5] or 0), now), now + it.window)
    it.permits = math.floor((now + it.window - it.tat) / it.interval)
  end
  gates[queue] = it
  return it
end

-- How many tasks of so many the gate lets through.
local function room_of(it, tasks)
  return math.max(math.min(tasks, it.slots, it.permits), 0)
end

local function admit(it, tasks)
  it.slots = it.slots - tasks
  it.permits = it.permits - tasks
  if it.tat then
    it.tat = it.tat + tasks * it.interval
    it.taken = true
  end
end

local next_at
local function ask_again(time)
  if time and (not next_at or time < next_at) then
    next_at = time
  end
end

-- When a task that is due may pass the gate, if time alone opens it.
local function opens_at(it, due)
  if it.slots <= 0 then
    return nil
  elseif it.permits <= 0 then
    return math.max(it.tat - (it.window - it.interval), now)
  end
  return due
end

-- The lanes of the asked kinds and queues that have waiting tasks and are not paused.
local function open_lanes()
  local lanes = {}
  for _, name in ipairs(call('SMEMBERS', prefix .. 'lanes')) do
    local at = string.find(name, '\n', 1, true)
    local queue, kind = sub(name, 1, at - 1), sub(name, at + 1)
    if kinds[kind] and (queue_count == 0 or queues[queue]) then
      local it = gate(queue)
      if not it.paused then
        lanes[#lanes + 1] = { name = name, list = 'due:' .. name, gate = it, orders = {} }
      end
    end
  end
  return lanes
end

-- Moves what has become due in a lane to its ready ones, up to `most`. Answers how many they were.
local function promote_in(lane, most)
  local key = 'sched:' .. lane.name
  local due = call('ZRANGE', prefix .. key, '-inf', now_text, 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES')
  for at = 1, #due, 2 do
    local rank, n = struct.unpack('>I4I8', due[at])
    -- The score is exact: it is not above now.
    local t = { [RANK] = rank, [N] = n, [RA] = tonumber(due[at + 1]), id = sub(due[at], SCHED_HEAD + 1) }
    plan('ZREM', key, due[at])
    plan('ZADD', 'ready:' .. lane.name, '0', ready_member(t))
  end
  flush()
  return #due / 2
end

-- The same in all lanes, which learn what comes next in them; whether there is more.
local function promote(lanes)
  local room = PROMOTE_MAX
  for _, lane in ipairs(lanes) do
    local key = 'sched:' .. lane.name
    lane.soonest = soonest(key)
    if has_passed(lane.soonest) then
      room = room - promote_in(lane, room)
      lane.soonest = soonest(key)
      if room <= 0 then
        return true
      end
    end
  end
  return false
end

-- By list: how many of its entries were of tasks that had left it otherwise than from its front.
local gone = {}

local function has_gone(lane)
  return (gone[lane.list] or 0) + (strayed[lane.list] or 0) > 0
end

local function fetch_members(members)
  local ids = {}
  for at = 1, #members do
    ids[at] = sub(members[at], READY_HEAD + 1)
  end
  fetch(ids)
end

-- Takes from the fronts of the lists what is no more there; whether there may be more.
local function trim(lanes)
  local found = call('HGETALL', prefix .. 'gone')
  for at = 1, #found, 2 do
    gone[found[at]] = tonumber(found[at + 1])
  end
  local room = PROMOTE_MAX
  for _, lane in ipairs(lanes) do
    local key, count = prefix .. lane.list, 1
    while room > 0 and count > 0 and has_gone(lane) do
      local members = call('LRANGE', key, 0, TRIM_AT_ONCE - 1)
      fetch_members(members)
      count = 0
      while count < #members and not is_listed(members[count + 1]) do
        count = count + 1
      end
      if count > 0 then
        call('LTRIM', key, count, -1)
        stray(lane.list, -count)
        room = room - count
      end
    end
  end
  return room <= 0
end

-- Two orders make a lane: its list and its sorted set.
local READS = { ['due:'] = 'LRANGE', ['ready:'] = 'ZRANGE' }

local function read_ahead(order, chunk)
  local key, from = prefix .. order.kind .. order.lane.name, order.from
  order.ahead = call(READS[order.kind], key, from, from + chunk - 1)
  order.from = from + #order.ahead
  order.dry = #order.ahead < chunk
  order.at = 1
  order.is_holey = order.kind == 'due:' and has_gone(order.lane)
  if order.is_holey then
    fetch_members(order.ahead)
  end
end

-- Moves to the next candidate of an order; false if there is none.
local function advance(order, chunk)
  repeat
    order.at = order.at + 1
    if order.at > #order.ahead and not order.dry then
      read_ahead(order, chunk)
    end
    order.head = order.ahead[order.at]
    local passes = order.head and order.is_holey and not is_listed(order.head)
    order.passed = order.passed + (passes and 1 or 0)
  until not passes
  return order.head ~= nil
end

-- The due time of a candidate, from the bytes that it is in order by.
local function due_of(head)
  return struct.unpack('>I8', head, 5) - 4503599627370496
end

-- Whether the candidate of an order comes before another's.
local function leads(a, b)
  return a.head < b.head
end

-- Puts an order among the others, of which the best is the last.
local function sort_in(heads, order)
  local low, high = 1, #heads + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if leads(heads[middle], order) then
      high = middle
    else
      low = middle + 1
    end
  end
  table.insert(heads, low, order)
end

-- The orders that have candidates. A lane without any is forgotten.
local function orders_of(lanes, chunk)
  local heads = {}
  for _, lane in ipairs(lanes) do
    local any = false
    lane.orders = {}
    for kind in pairs(READS) do
      local order = { kind = kind, lane = lane, ahead = {}, at = 0, from = 0, taken = 0, passed = 0, passed_then = 0,
        dry = false, is_holey = false, head = false }
      lane.orders[#lane.orders + 1] = order
      if advance(order, chunk) then
        any = true
        sort_in(heads, order)
      end
    end
    if not any and not lane.soonest then
      call('SREM', prefix .. 'lanes', lane.name)
    end
  end
  return heads
end

-- How many of an order are next, up to `most` and to what its gate lets through.
local function run_of(order, best, most)
  local ahead, at = order.ahead, order.at
  local room = room_of(order.lane.gate, most)
  if room == 0 or order.is_holey then
    return math.min(room, 1)
  end
  room = math.min(room, #ahead - at + 1)
  local run = best and 1 or room
  while run < room and ahead[at + run] < best.head do
    run = run + 1
  end
  return run
end

-- Merges the lanes, up to `most` and to what the gates let through. Answers the ids, and those of them that may have
-- moved before: what is listed has not.
local function pick(lanes, most)
  local picked, others, size = {}, {}, 0
  local chunk = math.min(most + 1, math.floor(most / math.max(#lanes, 1)) + READ_AHEAD)
  local heads = orders_of(lanes, chunk)
  while #heads > 0 do
    local order = table.remove(heads)
    local gate, ahead, at = order.lane.gate, order.ahead, order.at
    local run = run_of(order, heads[#heads], most - size)
    for next = 1, run do
      local id = sub(ahead[at + next - 1], READY_HEAD + 1)
      picked[size + next] = id
      if order.kind == 'ready:' then
        others[#others + 1] = id
      end
    end
    if run > 0 then
      admit(gate, run)
      size = size + run
      order.at, order.taken, order.passed_then = at + run - 1, order.taken + run, order.passed
      if advance(order, chunk) then
        sort_in(heads, order)
      end
    else
      ask_again(opens_at(gate, due_of(order.head)))
    end
  end
  return picked, others
end

local function is_before(a, b)
  if a.rank ~= b.rank then
    return a.rank < b.rank
  elseif a.due ~= b.due then
    return a.due < b.due
  end
  return a.n < b.n
end

-- The same among the named tasks: nothing is searched, only these are looked at.
local function pick_among(lanes, most)
  local open, seen, ids, found, picked = {}, {}, {}, {}, {}
  for _, lane in ipairs(lanes) do
    open[lane.name] = lane.gate
  end
  for at = among, #ARGV do
    if not seen[ARGV[at]] then
      seen[ARGV[at]] = true
      ids[#ids + 1] = ARGV[at]
    end
  end
  fetch(ids)
  for at = 1, #ids do
    local t = record(ids[at])
    if t and t[S] == 1 and t[RA] <= now and open[t.lane] then
      found[#found + 1] = { id = t.id, gate = open[t.lane], rank = t[RANK], due = t[RA], n = t[N] }
    end
  end
  table.sort(found, is_before)
  for _, it in ipairs(found) do
    if room_of(it.gate, most - #picked) > 0 then
      admit(it.gate, 1)
      picked[#picked + 1] = it.id
    end
  end
  return picked, picked
end

-- Takes what was picked out of its order: it is the beginning of that, but for what is no more there.
local function leave_orders(lane)
  for _, order in ipairs(lane.orders) do
    if order.taken > 0 and order.kind == 'due:' then
      call('LTRIM', prefix .. lane.list, order.taken + order.passed_then, -1)
      stray(lane.list, -order.passed_then)
    elseif order.taken > 0 then
      call('ZREMRANGEBYRANK', prefix .. 'ready:' .. lane.name, 0, order.taken - 1)
    end
  end
end

-- Claims these tasks, and tells of them. `others` are those that may have moved before.
local function take(ids, others, lanes)
  local claim = tonumber(number)
  for _, lane in ipairs(lanes) do
    leave_orders(lane)
  end
  fetch_moves(others)
  local records, moves, heads = values('rec', ids), {}, {}
  local written, owned = planned('HSET', 'run'), planned('SADD', 'owner:' .. replica)
  for at = 1, #ids do
    local id = ids[at]
    if among then
      leave_order(record(id))
      cache[id], dirty[id] = nil, nil
    end
    local before = moved[id]
    local head = head_of(before or records[at])
    local to = heads[head]
    if not to then
      to = claimed(head, replica, claim)
      heads[head] = to
    end
    to.tasks = to.tasks + 1
    if head[TIL] == 1 then
      plan('ZREM', 'deadlines', id)
    end
    -- A run_at of its own stays behind the head.
    local move = before and to.bytes .. sub(before, #head.bytes + 1) or to.bytes
    moves[at], owned[at] = move, id
    if among then
      moved[id] = move
    end
    written[2 * at - 1], written[2 * at] = id, move
  end
  for _, to in pairs(heads) do
    count(queue_of(to.lane), 1, -to.tasks)
    count(queue_of(to.lane), 2, to.tasks)
    owns(replica)
  end
  return tell_of(ids, records, moves)
end

-- The tasks of an earlier claim that its replica still runs, in order.
local function claimed_before()
  local found, ids = {}, call('SMEMBERS', prefix .. 'owner:' .. replica)
  fetch(ids)
  for at = 1, #ids do
    local t = record(ids[at])
    if t[CL] == tonumber(number) and t[S] == 2 then
      found[#found + 1] = { id = t.id, rank = t[RANK], due = t[RA], n = t[N] }
    end
  end
  table.sort(found, is_before)
  for at = 1, #found do
    found[at] = found[at].id
  end
  return tell(found)
end

local function next_scheduled(lanes)
  for _, lane in ipairs(lanes) do
    ask_again(lane.soonest)
  end
  ask_again(next_deadline)
end

local refused, drains = not_living(replica)
if refused then
  return finish({ refused, 0, tell({}), {}, '' })
elseif drains then
  return finish({ '', 0, claimed_before(), {}, '' })
end
local more = expire_overdue()
local lanes = open_lanes()
if promote(lanes) or trim(lanes) or more then
  return finish({ '', 1, tell({}), expired, '' })
end
local last = tonumber(call('HGET', prefix .. 'rep:' .. replica, 'claim'))
local repeated = tonumber(number) <= last and not goes_on
local picked, others = (among and pick_among or pick)(lanes, repeated and 0 or limit)
local tasks
if repeated then
  tasks = claimed_before()
else
  tasks = take(picked, others, lanes)
  call('HSET', prefix .. 'rep:' .. replica, 'claim', number)
end
if among then
  -- What else is due: only the first of each lane is looked at.
  flush()
  next_deadline = soonest('deadlines')
  pick(lanes, 0)
end
for queue, it in pairs(gates) do
  if it.taken then
    call('HSET', prefix .. 'queue:' .. queue, 'tat', int(it.tat))
  end
end
next_scheduled(lanes)
-- A time below 1970 or far ahead is as good as any below now or above it.
return finish({ '', 0, tasks, expired, next_at and int(next_at) or '' })
