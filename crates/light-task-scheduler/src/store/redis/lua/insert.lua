-- Takes tasks in.
--
-- ARGV from 5: tasks in groups that have alike: lane, rank (2147483647 - priority), start (now, at, after, held), its
--   time or delay, deadline or '', 1 if the ids were made just now or 0, 1 if specs are too large for the record or 0,
--   how many; then for each its id, and its fingerprint (16 bytes) with the spec behind it; a spec that is too large
--   follows alone
-- Answers for each task, all in one text: 'n ' taken in, 'eN' the same is there in state N, 'r ' the same was removed,
--   'c ' the id belongs to another

local TOMBSTONE_TTL = 86400000000
local FINGERPRINT_BYTES = 16
-- The last time that can be printed: the end of the year 9999.
local LAST_TIME = 253402207200000000
local PRIORITY_0 = 2147483647

-- The tombstones of those ids of a group that may have been used.
local function tombs_of(group)
  local ids = {}
  for at = group.from, group.last, group.stride do
    ids[#ids + 1] = ARGV[at]
  end
  fetch(ids)
  return values('tomb', ids)
end

-- The answer for an id that is or was in use; nil if it is free.
local function taken(id, fingerprint, tomb)
  local t = record(id)
  if t then
    return t[FP] == fingerprint and 'e' .. t[S] or 'c '
  elseif not tomb then
    return nil
  elseif now < tonumber(sub(tomb, FINGERPRINT_BYTES + 1)) + TOMBSTONE_TTL then
    return sub(tomb, 1, FINGERPRINT_BYTES) == fingerprint and 'r ' or 'c '
  end
  plan('HDEL', 'tomb', id)
  plan('ZREM', 'tombs', id)
end

-- What the tasks of a group have alike, as it stands in their records.
local function prepare(group)
  local state, run_at = 1, now
  if group.start == 'held' then
    state = 0
  elseif group.start == 'at' then
    run_at = group.time
  elseif group.start == 'after' then
    run_at = math.min(now + group.time, LAST_TIME)
  end
  -- Nearly all tasks are due at once: their place needs no look at the record.
  group.is_due = group.start == 'now' and not group.deadline
  group.is_listed = group.is_due and group.rank == PRIORITY_0
  group.order = group.is_due and ready_order(group.rank, run_at)
  local head = { state, 0, 0, 0, group.is_large and 1 or 0, group.deadline and 1 or 0, group.is_listed and 1 or 0, 0, 0,
    unpack(FRESH) }
  head.lane = group.lane
  group.head = head_bytes(head)
  local deadline = group.deadline and pack('>i8', group.deadline) or ''
  group.times = pack('>I4i8i8', group.rank, run_at, now) .. deadline
end

-- What was taken in: the ids in order, and beside the records. Nothing is flushed meanwhile.
local records, filed, size = planned('HSET', 'rec'), {}, 0

local function insert(group, ready, at)
  local id = ARGV[at]
  seq, size = seq + 1, size + 1
  filed[size] = id
  local number = pack('>I8', seq)
  local bytes = group.head .. number .. group.times .. ARGV[at + 1]
  records[2 * size - 1], records[2 * size] = id, bytes
  if not (group.is_fresh and group.is_due) then
    stored[id], moved[id], cache[id] = bytes, false, nil
  end
  if group.is_large then
    plan('HSET', 'spec', id, ARGV[at + 2])
  end
  if group.is_due then
    if not group.is_listed then
      ready[#ready + 1] = '0'
    end
    ready[#ready + 1] = group.order .. number .. id
    group.due = group.due + 1
  else
    enter(record(id))
    -- It has not moved.
    dirty[id] = nil
  end
  return 'n '
end

local answers, known_queues = {}, {}
local function insert_group(group)
  prepare(group)
  local ready = group.is_listed and planned('RPUSH', 'due:' .. group.lane)
    or planned('ZADD', named('ready:', group.lane))
  local tombs = not group.is_fresh and tombs_of(group)
  local before = size
  for at = group.from, group.last, group.stride do
    local tomb = tombs and tombs[(at - group.from) / group.stride + 1]
    local used = tombs and taken(ARGV[at], sub(ARGV[at + 1], 1, FINGERPRINT_BYTES), tomb)
    answers[#answers + 1] = used or insert(group, ready, at)
  end
  local queue = queue_of(group.lane)
  if group.due > 0 then
    count(queue, 1, group.due)
    waits_in(group.lane)
  end
  if size > before and not known_queues[queue] then
    known_queues[queue] = true
    call('SADD', prefix .. 'queues', queue)
  end
end

local place = first
while place <= #ARGV do
  local group = { lane = ARGV[place], rank = tonumber(ARGV[place + 1]), start = ARGV[place + 2],
    time = tonumber(ARGV[place + 3]), deadline = tonumber(ARGV[place + 4]), is_fresh = ARGV[place + 5] == '1',
    is_large = ARGV[place + 6] == '1', from = place + 8, due = 0 }
  group.stride = group.is_large and 3 or 2
  group.last = group.from + (tonumber(ARGV[place + 7]) - 1) * group.stride
  insert_group(group)
  place = group.last + group.stride
end

-- The ids of what was taken in go onto their pages.
local from = seq - size
while from < seq do
  local page, at = place_of(from + 1)
  local till = math.min(from + PAGE - at, seq)
  local list = planned('RPUSH', 'page:' .. page)
  for number = from + 1, till do
    list[#list + 1] = filed[size - seq + number]
  end
  if at == 0 then
    call('ZADD', prefix .. 'pages', page, page)
  end
  call('HINCRBY', prefix .. 'alive', page, till - from)
  from = till
end
return finish(table.concat(answers))
