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
--   t:ID          H  a task, see below
--   all           Z  insertion number: every task
--   ready:LANE    Z  0: due waiting tasks, in order by themselves (see `ready_member`). LANE is QUEUE \n KIND
--   sched:LANE    Z  run_at: waiting tasks not yet seen to be due
--   lanes         S  lanes that have waiting tasks (or had, until a claim looks)
--   deadlines     Z  deadline: held and waiting tasks that have one
--   state:N       Z  insertion number: tasks in the state 0 held, 3 exporting, 5 failed, 6 cancelled
--   running:QUEUE Z  insertion number: running tasks; its size is what a limit is compared with
--   owner:REPLICA Z  run: running and exporting tasks of a replica; without a name: of nobody
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
-- Fields of a task; one that is 0, false or none is absent. Times are microseconds since 1970, as text.
--   n insertion number, q queue, k kind, p payload, pr priority, ca created_at, o options (JSON), dl deadline,
--   fp fingerprint; s state, c cancel requested, u stop unconfirmed, ra run_at, ow owner, cl number of the claim,
--   r run, x execution, g generation, a attempt, i interruptions, l lost in a row, sa started_at, fa finished_at;
--   h handle, pg progress (JSON), out output, ri inline result, rr stored result (JSON), gk its key,
--   f failure (JSON), fk its kind, at attempts: a line each of attempt, execution, replica, started, ended, JSON;
--   report: rx execution, re 1 if an outcome, rs said (JSON), ro output, rh the run that was told of it

local call = redis.call
local prefix = string.sub(KEYS[1], 1, -5)
local first = 5

-- A whole number below 2^53 as text; `tostring` would round it.
local function int(number)
  return string.format('%.0f', number)
end

local meta = call('HMGET', KEYS[1], 'now', 'op', 'epoch', 'seq')
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
-- What becomes of sorted sets: key → member → score, or false to remove it. The last word counts.
local moves = {}

local function count(queue, state, by)
  local states = tally[queue]
  if not states then
    states = {}
    tally[queue] = states
  end
  states[state] = (states[state] or 0) + by
end

local function move(key, member, score)
  local members = moves[key]
  if not members then
    members = {}
    moves[key] = members
  end
  members[member] = score
end

-- Most arguments of one command: Lua's stack is bounded.
local ARGUMENTS_MAX = 4000

local function send(command, key, arguments)
  for from = 1, #arguments, ARGUMENTS_MAX do
    call(command, key, unpack(arguments, from, math.min(from + ARGUMENTS_MAX - 1, #arguments)))
  end
end

-- Writes the moves; needed before a script reads a sorted set that it has changed.
local function flush()
  for key, members in pairs(moves) do
    local add, remove = {}, {}
    for member, score in pairs(members) do
      if score then
        add[#add + 1] = score
        add[#add + 1] = member
      else
        remove[#remove + 1] = member
      end
    end
    send('ZREM', prefix .. key, remove)
    send('ZADD', prefix .. key, add)
  end
  moves = {}
end

-- The order of due tasks: priority (high first), due time, insertion; as bytes that sort so.
-- The time is shifted by 2^52 so that times before 1970 sort too.
local function ready_member(t)
  local due = math.max(tonumber(t.ra) + 4503599627370496, 0)
  return struct.pack('>I4I8I8', 2147483647 - (t.pr or 0), due, t.n) .. t.id
end
local READY_HEAD = 20

-- The same without the time, which is the score.
local function sched_member(t)
  return struct.pack('>I4I8', 2147483647 - (t.pr or 0), t.n) .. t.id
end
local SCHED_HEAD = 12

local function key_of(id)
  return prefix .. 't:' .. id
end

-- Reads these fields of a task; nil if there is none. `fields` begins with `s`.
local function load(id, fields)
  local values = call('HMGET', key_of(id), unpack(fields))
  if not values[1] then
    return nil
  end
  local t = { id = id }
  for at, field in ipairs(fields) do
    t[field] = values[at] or nil
  end
  return t
end

-- What `leave` and `enter` look at.
local PLACE = { 's', 'n', 'q', 'k', 'pr', 'ra', 'dl', 'ow', 'r', 'c', 'rx', 'fa' }

local limited = {}
-- Whether the queue has a limit, so that somebody may wait for a free slot.
local function is_limited(queue)
  if limited[queue] == nil then
    limited[queue] = call('HEXISTS', prefix .. 'queue:' .. queue, 'limit') == 1
  end
  return limited[queue]
end

-- Takes a task out of the places of its state.
local function leave(t)
  local state, id = t.s, t.id
  count(t.q, state, -1)
  if state == '2' then
    move('running:' .. t.q, id, false)
    move('owner:' .. t.ow, id, false)
    if t.c then
      call('SREM', prefix .. 'wish:' .. t.ow, id)
    end
    if t.rx then
      call('SREM', prefix .. 'post:' .. t.ow, id)
    end
    if not hint.work then
      hint.work = is_limited(t.q)
    end
  elseif state == '3' then
    move('state:3', id, false)
    move('owner:' .. (t.ow or ''), id, false)
  elseif state == '1' then
    local lane = t.q .. '\n' .. t.k
    move('ready:' .. lane, ready_member(t), false)
    move('sched:' .. lane, sched_member(t), false)
  else
    if state ~= '4' then
      move('state:' .. state, id, false)
    end
    if state ~= '0' then
      move('done:' .. state, id, false)
    end
  end
  if t.dl and (state == '0' or state == '1') then
    move('deadlines', id, false)
  end
end

local known_lanes, known_owners = {}, {}

-- Puts a task into the places of its state.
local function enter(t)
  local state, id = t.s, t.id
  count(t.q, state, 1)
  if state == '2' or state == '3' then
    local owner = t.ow or ''
    move(state == '2' and 'running:' .. t.q or 'state:3', id, t.n)
    move('owner:' .. owner, id, t.r or 0)
    if not known_owners[owner] then
      known_owners[owner] = true
      call('SADD', prefix .. 'owners', owner)
    end
  elseif state == '1' then
    local lane = t.q .. '\n' .. t.k
    if tonumber(t.ra) <= now then
      move('ready:' .. lane, ready_member(t), 0)
    else
      move('sched:' .. lane, sched_member(t), t.ra)
    end
    if not known_lanes[lane] then
      known_lanes[lane] = true
      call('SADD', prefix .. 'lanes', lane)
    end
    hint.work = true
  else
    if state ~= '4' then
      move('state:' .. state, id, t.n)
    end
    if state ~= '0' then
      move('done:' .. state, id, t.fa)
      hint.ends = true
    end
  end
  if t.dl and (state == '0' or state == '1') then
    move('deadlines', id, t.dl)
  end
end

-- Writes fields of a task, removes others, and moves it to its new state. `t` is as it was read.
local function save(t, state, set, gone)
  local key = key_of(t.id)
  leave(t)
  if t.s == '2' and state ~= '2' and t.rx then
    -- What was said of a run ends with it.
    for _, field in ipairs({ 'rx', 're', 'rs', 'ro', 'rh' }) do
      gone[#gone + 1] = field
    end
  end
  local fields = { 's', state }
  t.s = state
  for _, field in ipairs(gone) do
    t[field] = nil
  end
  for field, value in pairs(set) do
    fields[#fields + 1] = field
    fields[#fields + 1] = value
    t[field] = value
  end
  call('HSET', key, unpack(fields))
  if #gone > 0 then
    call('HDEL', key, unpack(gone))
  end
  enter(t)
end

-- Removes a task and leaves a tombstone.
local function remove(t)
  local key = key_of(t.id)
  leave(t)
  move('all', t.id, false)
  local fingerprint = call('HGET', key, 'fp')
  call('HSET', prefix .. 'tomb', t.id, fingerprint .. now_text)
  move('tombs', t.id, now_text)
  call('DEL', key)
  hint.ends = true
end

-- Keeps the key of a result that a task no longer refers to.
local function discard(key)
  if key then
    move('garbage', key, 0)
  end
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

-- Writes what every writing script writes, and makes its answer.
local function finish(body)
  local seen, op, epoch = tonumber(ARGV[4]), tonumber(meta[2] or 0), tonumber(meta[3] or 0)
  if seen > 0 and tonumber(call('ZSCORE', prefix .. 'handles', ARGV[3]) or 0) < seen then
    -- A write of this handle was acknowledged and is not there.
    epoch = epoch + 1
    op = math.max(op, seen)
  end
  op = op + 1
  flush()
  for queue, states in pairs(tally) do
    for state, by in pairs(states) do
      if by ~= 0 then
        call('HINCRBY', prefix .. 'count:' .. queue, state, by)
      end
    end
  end
  call('HSET', KEYS[1], 'now', now_text, 'op', int(op), 'epoch', int(epoch), 'seq', int(seq))
  call('ZADD', prefix .. 'handles', int(op), ARGV[3])
  for _, counter in ipairs({ 'work', 'wishes', 'ends' }) do
    if hint[counter] then
      call('HINCRBY', KEYS[1], counter, 1)
    end
  end
  local changes = call('HMGET', KEYS[1], 'work', 'wishes', 'ends')
  if hint.work or hint.wishes or hint.ends then
    call('PUBLISH', prefix .. 'hint', table.concat({ changes[1] or 0, changes[2] or 0, changes[3] or 0 }, ' '))
  end
  return { now_text, int(op), int(epoch), changes[1] or '0', changes[2] or '0', changes[3] or '0', body }
end
