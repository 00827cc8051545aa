-- What every script begins with: time, counters, the keys, and how a task is in them.
--
-- A script runs whole or not at all, and nothing else runs meanwhile. All keys of a namespace begin with its
-- hash tag, so that they are on one node of a cluster; a script makes their names itself.
--
-- KEYS[1]  {lts:NAMESPACE}:meta
-- ARGV[1]  microseconds to add to the server's time; after `=`: instead of it (tests; otherwise 0)
-- ARGV[2]  the latest time that the caller has seen, microseconds since 1970
-- ARGV[3]  names the caller's store handle
-- ARGV[4]  the highest write counter that was acknowledged to this handle; 0: none yet
-- ARGV[5]… what the script is about, from `first` on
--
-- A script that writes ends with `finish(body)` and answers { now, op, epoch, work, wishes, ends, body }.
--
-- Keys after the prefix (Z sorted set with its score, H hash, S set):
--   meta          H  now: the highest time handed out; seq: the last insertion number; op: counts writing scripts;
--                    epoch: counts found losses of writes; work, wishes, ends: the counters of `Changes`; version
--   handles       Z  op: the last write of every store handle, to find that acknowledged writes were lost
--   rec           H  by id: a task's record, see FORMAT
--   spec          H  by id: length of the options (4 bytes), options (JSON), payload
--   res           H  by id: an inline result
--   d:ID          H  what few tasks have at any one time, see below
--   all           Z  insertion number: every task
--   ready:LANE    Z  0: due waiting tasks, in order by themselves (see `ready_member`). LANE is QUEUE \n KIND
--   sched:LANE    Z  run_at: waiting tasks not yet seen to be due
--   lanes         S  lanes that have waiting tasks (or had, until a claim looks)
--   deadlines     Z  deadline: held and waiting tasks that have one
--   state:N       Z  insertion number: tasks in the state 0 held, 3 exporting, 5 failed, 6 cancelled
--   running:QUEUE S  running tasks; its size is what a limit is compared with
--   owner:REPLICA H  by id: run: running and exporting tasks of a replica; without a name: of nobody
--   owners        S  replicas that (may) own tasks
--   wish:REPLICA  S  its running tasks that are wished to stop
--   post:REPLICA  S  its running tasks that have a report to hand out
--   done:N        Z  finished_at: tasks in the terminal state N
--   queues        S  every queue that has settings or ever had a task
--   queue:QUEUE   H  json: its settings; limit, interval, window (of the rate), paused: the same for scripts; tat
--   count:QUEUE   H  by number of the state: how many tasks
--   rep:REPLICA   H  name, ttl, beat, exp, dead, claim (the last number)
--   live          S  replicas that have not been declared dead and have not left
--   reps          S  every replica that ever registered
--   tombs, tomb   Z  removed_at, H fingerprint and removed_at: ids of removed tasks
--   garbage       Z  0: keys of stored results that nobody refers to any more
--
-- Fields of d:ID, absent if there is none:
--   h handle, pg progress (JSON), out output, rr stored result (JSON), gk its key, f failure (JSON), fk its kind,
--   at attempts: a line each of attempt, execution, replica, started, ended, failure (JSON);
--   report: rx execution, re 1 if an outcome, rs said (JSON), ro output, rh the run that was told of it

local call = redis.call
local prefix = string.sub(KEYS[1], 1, -5)
local first = 5

-- A record is an array: its parts have these places. Behind them in the stored bytes stands the lane.
-- Times are microseconds since 1970 and exact up to the year 2255, then to 32 microseconds.
local S, C, U, DET, RES = 1, 2, 3, 4, 5 -- state; 1 or 0: cancel requested, stop unconfirmed, has d:ID, is in res
local N, RANK = 6, 7                    -- insertion number; 2147483647 - priority
local RA, DL, CA = 8, 9, 10             -- run_at, deadline, created_at
local OW, CL = 11, 12                   -- owner, number of the claim that took it
local R, X, G, A, I, L = 13, 14, 15, 16, 17, 18 -- run, execution, generation, attempt, interruptions, lost in a row
local SA, FA, FP = 19, 20, 21           -- started_at, finished_at, fingerprint
local FORMAT = '>BBBBBI8I4i8i8i8c36I8I8I8I4I4I4I4i8i8c16'
local HEAD_BYTES = 149
local NOBODY = string.rep('\0', 36)
local NEVER = -9223372036854775808

-- A whole number as text; `tostring` would round it.
local function int(number)
  return string.format('%.0f', number)
end

local meta = call('HMGET', KEYS[1], 'now', 'op', 'epoch', 'seq', 'work', 'wishes', 'ends')
local now
if string.sub(ARGV[1], 1, 1) == '=' then
  now = tonumber(string.sub(ARGV[1], 2))
else
  local clock = call('TIME')
  now = clock[1] * 1000000 + clock[2] + ARGV[1]
end
now = math.max(now, tonumber(meta[1] or 0), tonumber(ARGV[2]))
local now_text = int(now)
local seq = tonumber(meta[4] or 0)

-- What this script gives a hint of.
local hint = { work = false, wishes = false, ends = false }
-- By how much the counts have changed: queue → state → number.
local tally = {}
-- What is to be done with many members of a key at once: command → key → arguments.
local plans = {}
-- The records that were read, by id; false: there is none. And those that are to be written.
local cache, dirty, results = {}, {}, {}

-- Most arguments of one command: Lua's stack is bounded.
local ARGUMENTS_MAX = 4000

local function send(command, key, arguments)
  local size = #arguments
  for from = 1, size, ARGUMENTS_MAX do
    call(command, key, unpack(arguments, from, math.min(from + ARGUMENTS_MAX - 1, size)))
  end
end

-- The values of these fields of a hash.
local function values(key, fields)
  local size = #fields
  if size <= ARGUMENTS_MAX then
    return size > 0 and call('HMGET', prefix .. key, unpack(fields)) or {}
  end
  local found = {}
  for from = 1, size, ARGUMENTS_MAX do
    local part = call('HMGET', prefix .. key, unpack(fields, from, math.min(from + ARGUMENTS_MAX - 1, size)))
    for at = 1, #part do
      found[from + at - 1] = part[at]
    end
  end
  return found
end

local function plan(command, key, one, two)
  local keys = plans[command]
  if not keys then
    keys = {}
    plans[command] = keys
  end
  local list = keys[key]
  if not list then
    list = {}
    keys[key] = list
  end
  local size = #list
  list[size + 1] = one
  if two then
    list[size + 2] = two
  end
end

-- Does what is planned, what removes first; needed before a script reads what it has changed, and before it
-- moves a task for the second time.
local ORDER = { 'ZREM', 'SREM', 'HDEL', 'ZADD', 'SADD', 'HSET' }
local function flush()
  for at = 1, #ORDER do
    for key, arguments in pairs(plans[ORDER[at]] or {}) do
      send(ORDER[at], prefix .. key, arguments)
    end
  end
  plans = {}
end

local function unpacked(id, bytes)
  local t = { struct.unpack(FORMAT, bytes) }
  t.id, t.lane = id, string.sub(bytes, HEAD_BYTES + 1)
  return t
end

local function packed(t)
  local bytes = t.bytes
  if not bytes then
    bytes = struct.pack(FORMAT, unpack(t, 1, FP)) .. t.lane
    t.bytes = bytes
  end
  return bytes
end

-- The record has changed.
local function touch(t)
  t.bytes = nil
  dirty[t.id] = t
end

-- Reads the records of these ids at once.
local function fetch(ids)
  local found = values('rec', ids)
  for at = 1, #ids do
    local id = ids[at]
    if cache[id] == nil then
      cache[id] = found[at] and unpacked(id, found[at])
    end
  end
end

-- The record of a task; false if there is none.
local function record(id)
  if cache[id] == nil then
    fetch({ id })
  end
  return cache[id]
end

local queues_of = {}
local function queue_of(lane)
  local queue = queues_of[lane]
  if not queue then
    queue = string.sub(lane, 1, string.find(lane, '\n', 1, true) - 1)
    queues_of[lane] = queue
  end
  return queue
end

local function kind_of(lane)
  return string.sub(lane, string.find(lane, '\n', 1, true) + 1)
end

-- The order of due tasks: priority (high first), due time, insertion; as bytes that sort so.
-- The time is shifted by 2^52 so that times before 1970 sort too.
local function ready_member(t)
  return struct.pack('>I4I8I8', t[RANK], math.max(t[RA] + 4503599627370496, 0), t[N]) .. t.id
end
local READY_HEAD = 20

-- The same without the time, which is the score.
local function sched_member(t)
  return struct.pack('>I4I8', t[RANK], t[N]) .. t.id
end
local SCHED_HEAD = 12

local function detail_key(id)
  return prefix .. 'd:' .. id
end

-- Writes details: field, value, field, value, …
local function set_details(t, ...)
  if t[DET] == 0 then
    t[DET] = 1
    touch(t)
  end
  call('HSET', detail_key(t.id), ...)
end

local function forget_details(t, ...)
  if t[DET] == 1 then
    local key = detail_key(t.id)
    if call('HDEL', key, ...) > 0 and call('EXISTS', key) == 0 then
      t[DET] = 0
      touch(t)
    end
  end
end

local function count(queue, state, by)
  local states = tally[queue]
  if not states then
    states = {}
    tally[queue] = states
  end
  states[state] = (states[state] or 0) + by
end

local limited = {}
-- Whether the queue has a limit, so that somebody may wait for a free slot.
local function is_limited(queue)
  if limited[queue] == nil then
    limited[queue] = call('HEXISTS', prefix .. 'queue:' .. queue, 'limit') == 1
  end
  return limited[queue]
end

-- Names of keys, made once: prefix of the name → rest → name.
local made = { ['running:'] = {}, ['owner:'] = {}, ['ready:'] = {}, ['sched:'] = {} }
local function named(kind, rest)
  local names = made[kind]
  local name = names[rest]
  if not name then
    name = kind .. (rest == NOBODY and '' or rest)
    names[rest] = name
  end
  return name
end

-- Takes a task out of the places of its state; it is then put into those of another. `is_out`: it was taken
-- out of its order already.
local function leave(t)
  local state, id, queue = t[S], t.id, queue_of(t.lane)
  if t.moved then
    flush()
  end
  t.moved = true
  count(queue, state, -1)
  if state == 2 then
    plan('SREM', named('running:', queue), id)
    plan('HDEL', named('owner:', t[OW]), id)
    if t[C] == 1 then
      call('SREM', prefix .. 'wish:' .. t[OW], id)
    end
    if not hint.work then
      hint.work = is_limited(queue)
    end
  elseif state == 1 then
    if not t.is_out then
      plan('ZREM', named('ready:', t.lane), ready_member(t))
      if t[RA] > t[CA] then
        plan('ZREM', named('sched:', t.lane), sched_member(t))
      end
    end
  elseif state == 3 then
    plan('ZREM', 'state:3', id)
    plan('HDEL', named('owner:', t[OW]), id)
  else
    if state ~= 4 then
      plan('ZREM', 'state:' .. state, id)
    end
    if state ~= 0 then
      plan('ZREM', 'done:' .. state, id)
    end
  end
  if t[DL] ~= NEVER and state < 2 then
    plan('ZREM', 'deadlines', id)
  end
end

local known_lanes, known_owners = {}, {}

-- Puts a task into the places of its state, and has it written.
local function enter(t)
  local state, id = t[S], t.id
  touch(t)
  count(queue_of(t.lane), state, 1)
  if state == 4 then
    plan('ZADD', 'done:4', t[FA], id)
    hint.ends = true
  elseif state == 2 or state == 3 then
    local owner = t[OW] == NOBODY and '' or t[OW]
    if state == 2 then
      plan('SADD', named('running:', queue_of(t.lane)), id)
    else
      plan('ZADD', 'state:3', t[N], id)
    end
    plan('HSET', named('owner:', t[OW]), id, t[R])
    if not known_owners[owner] then
      known_owners[owner] = true
      call('SADD', prefix .. 'owners', owner)
    end
  elseif state == 1 then
    if t[RA] <= now then
      plan('ZADD', named('ready:', t.lane), 0, ready_member(t))
    else
      plan('ZADD', named('sched:', t.lane), int(t[RA]), sched_member(t))
    end
    if not known_lanes[t.lane] then
      known_lanes[t.lane] = true
      call('SADD', prefix .. 'lanes', t.lane)
    end
    hint.work = true
  else
    plan('ZADD', 'state:' .. state, t[N], id)
    if state ~= 0 then
      plan('ZADD', 'done:' .. state, t[FA], id)
      hint.ends = true
    end
  end
  if t[DL] ~= NEVER and state < 2 then
    plan('ZADD', 'deadlines', int(t[DL]), id)
  end
end

-- What was said of a run ends with it.
local function drop_report(t)
  if t[DET] == 1 then
    call('SREM', prefix .. 'post:' .. t[OW], t.id)
    forget_details(t, 'rx', 're', 'rs', 'ro', 'rh')
  end
end

-- Keeps the key of the stored result that a task no longer refers to, if there is one.
local function discard(t)
  local key = t[DET] == 1 and call('HGET', detail_key(t.id), 'gk')
  if key then
    plan('ZADD', 'garbage', 0, key)
  end
end

-- Removes a task and leaves a tombstone.
local function remove(t)
  local id = t.id
  discard(t)
  leave(t)
  plan('ZREM', 'all', id)
  call('HSET', prefix .. 'tomb', id, t[FP] .. now_text)
  plan('ZADD', 'tombs', now_text, id)
  call('HDEL', prefix .. 'rec', id)
  call('HDEL', prefix .. 'spec', id)
  if t[RES] == 1 then
    call('HDEL', prefix .. 'res', id)
  end
  if t[DET] == 1 then
    call('UNLINK', detail_key(id))
  end
  cache[id], dirty[id] = false, nil
  hint.ends = true
end

-- What is told of tasks, five items for each: id, record or '' if there is none, spec, inline result or '',
-- details or ''. One flat list: every list within an answer costs as much as some commands.
local function tell(ids)
  fetch(ids)
  local specs, told, size = values('spec', ids), {}, 0
  for at = 1, #ids do
    local id = ids[at]
    local t = cache[id]
    local record, result, details = '', '', ''
    if t then
      record = packed(t)
      if t[RES] == 1 then
        result = results[id] or call('HGET', prefix .. 'res', id)
      end
      if t[DET] == 1 then
        details = call('HGETALL', detail_key(id))
      end
    end
    told[size + 1], told[size + 2], told[size + 3], told[size + 4], told[size + 5] =
      id, record, specs[at] or '', result, details
    size = size + 5
  end
  return told
end

-- The labels of a task.
local function labels_of(id)
  local spec = call('HGET', prefix .. 'spec', id)
  local size = struct.unpack('>I4', spec)
  return size > 0 and cjson.decode(string.sub(spec, 5, 4 + size)).labels or {}
end

-- Whether a lease has ended, or ends later than any heartbeat could have made it.
local function is_expired(expires_at, ttl)
  expires_at = tonumber(expires_at)
  return now >= expires_at or expires_at > now + tonumber(ttl)
end

-- Why a replica may not claim or rescue; nil if it is registered and alive.
local function not_living(replica)
  local row = call('HMGET', prefix .. 'rep:' .. replica, 'dead', 'exp', 'ttl')
  if not row[1] then
    return 'is unknown to the store'
  elseif row[1] == '1' then
    return 'was declared dead or has left'
  elseif is_expired(row[2], row[3]) then
    return 'has not renewed its lease in time'
  end
end

-- Writes the records that have changed, inline results, and what else is planned.
local function write_back()
  for id, t in pairs(dirty) do
    plan('HSET', 'rec', id, packed(t))
  end
  for id, bytes in pairs(results) do
    plan('HSET', 'res', id, bytes)
  end
  flush()
  for queue, states in pairs(tally) do
    for state, by in pairs(states) do
      if by ~= 0 then
        call('HINCRBY', prefix .. 'count:' .. queue, state, by)
      end
    end
  end
end

-- Writes what every writing script writes, and makes its answer.
local function finish(body)
  local seen, op, epoch = tonumber(ARGV[4]), tonumber(meta[2] or 0), tonumber(meta[3] or 0)
  if seen > 0 and tonumber(call('ZSCORE', prefix .. 'handles', ARGV[3]) or 0) < seen then
    -- A write of this handle was acknowledged and is not there.
    epoch = epoch + 1
    op = math.max(op, seen)
  end
  op = op + 1
  write_back()
  local work = int(tonumber(meta[5] or 0) + (hint.work and 1 or 0))
  local wishes = int(tonumber(meta[6] or 0) + (hint.wishes and 1 or 0))
  local ends = int(tonumber(meta[7] or 0) + (hint.ends and 1 or 0))
  call('HSET', KEYS[1], 'now', now_text, 'op', int(op), 'epoch', int(epoch), 'seq', int(seq),
    'work', work, 'wishes', wishes, 'ends', ends)
  call('ZADD', prefix .. 'handles', int(op), ARGV[3])
  if hint.work or hint.wishes or hint.ends then
    call('PUBLISH', prefix .. 'hint', work .. ' ' .. wishes .. ' ' .. ends)
  end
  return { now_text, int(op), int(epoch), work, wishes, ends, body }
end
