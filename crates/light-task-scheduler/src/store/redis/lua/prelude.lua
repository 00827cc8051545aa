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
-- Keys after the prefix (Z sorted set with its score, H hash, S set, L list):
--   meta          H  now: the highest time handed out; seq: the last insertion number; op: counts writing scripts;
--                    epoch: counts found losses of writes; work, wishes, ends: the counters of `Changes`; version
--   handles       Z  op: the last write of every store handle, to find that acknowledged writes were lost
--   rec           H  by id: a task's record as it was taken in; nothing of it ever changes but the priority, see below
--   run           H  by id: what has become of it since, if anything has, see below
--   spec          H  by id: a spec that is too large for the record: length of the options (4 bytes), options
--                    (JSON), payload
--   res           H  by id: an inline result that is too large for the record
--   d:ID          H  what few tasks have at any one time, see below
--   page:K        L  the ids of the tasks number 1000 K + 1 to 1000 K + 1000, '' for a removed one: every task
--   pages         Z  K: the pages; alive H by K: how many tasks of it are there
--   due:LANE      L  waiting tasks of priority 0 that were due when they were taken in, in order by themselves (see
--                    `ready_member`), and such as have left otherwise than from its front: they are no more LISTED.
--                    LANE is QUEUE \n KIND. A list costs a fifth of a sorted set
--   succeeded     L  succeeded tasks in the order of their ends (see `ended_member`), and such as have left it like that
--   gone          H  by name of a list: how many have left it like that
--   ready:LANE    Z  0: all other due waiting tasks, in order by themselves
--   sched:LANE    Z  run_at: waiting tasks not yet seen to be due
--   lanes         S  lanes that have waiting tasks (or had, until a claim looks)
--   deadlines     Z  deadline: held and waiting tasks that have one
--   state:N       Z  insertion number: tasks in the state 0 held, 3 exporting, 5 failed, 6 cancelled
--   owner:REPLICA S  running and exporting tasks of a replica; without a name: of nobody
--   owners        S  replicas that (may) own tasks
--   wish:REPLICA  S  its running tasks that are wished to stop
--   post:REPLICA  S  its running tasks that have a report to hand out
--   done:N        Z  finished_at: tasks in the terminal state N; of the succeeded ones those that a sweep has spared
--   queues        S  every queue that has settings or ever had a task
--   queue:QUEUE   H  json: its settings; limit, interval, window (of the rate), paused: the same for scripts; tat
--   count:QUEUE   H  by number of the state: how many tasks; that of the running ones is what a limit is compared with
--   rep:REPLICA   H  name, ttl, beat, exp, dead, claim (the last number), home (where its process lives, '' if unknown), drain
--                    (1, or absent: it is to take nothing more)
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
local sub, byte, pack = string.sub, string.byte, struct.pack
local prefix = sub(KEYS[1], 1, -5)
local first = 5

-- A record is an array; its parts have these places. Times are microseconds since 1970, exact up to the year 2255, then
-- to 32 microseconds.
local S, C, U, DET, SEP, TIL = 1, 2, 3, 4, 5, 6 -- state; 1 or 0: cancel requested, stop unconfirmed, has d:ID,
                                                -- its spec is in spec, has a deadline
local LISTED = 7                                -- 1 or 0: stands in due:LANE or in succeeded
local LATER = 8                                 -- 1 or 0: its run_at is not that of its record
local RES = 9                                   -- its inline result: 0 none, 1 in res, 2 in run
local OW, CL = 10, 11                           -- owner, number of the claim that took it
local R, X, G, A, I, L = 12, 13, 14, 15, 16, 17 -- run, execution, generation, attempt, interruptions, lost in a row
local SA, FA = 18, 19                           -- started_at, finished_at
local N, RANK, RA, CA = 20, 21, 22, 23          -- insertion number; 2147483647 - priority; run_at, created_at
local FP, DL = 24, 25                           -- fingerprint, deadline
--
-- As bytes it is in two parts, because a script pays for each byte that it touches: what a task is, and where it stands.
-- In rec:
--   head    as it was when the task was taken in
--   body    the parts of BODY, deadline if there is one (8), fingerprint (16)
--   spec    if it is here
-- In run, from the first move on:
--   head    as it is now: its length (2), state (1), flags (2), the parts of RUN if it was ever claimed or ended, lane.
--           Tasks that have gone the same way have the same head, and a move is worked out once for them all
--   run_at  (8), if it is LATER
--   result  if it is here: its length (2) and bytes
-- A waiting task that is LISTED has not moved yet.
local HEAD = '>I2BI2'
local HEAD_BYTES = 5
local RUN = '>c16I8I8I8I4I4I4I4i8i8'
local RUN_BYTES = 72
local BODY = '>I8I4i8i8'
local NOBODY = string.rep('\0', 36)
local NEVER = -9223372036854775808
-- The flags: place and weight of what is 1 or 0; the weight of a result in res, in run, of the parts of RUN.
local FLAGS = { C, 1, U, 2, DET, 4, SEP, 8, TIL, 16, LISTED, 256, LATER, 512 }
local IN_RES, IN_RUN, HAS_RUN = 32, 64, 128
-- The parts of RUN of a task that was never claimed and has not ended.
local FRESH = { NOBODY, 0, 0, 0, 0, 0, 0, 0, NEVER, NEVER }

-- A whole number as text; `tostring` would round it, and `%.0f` takes twice as long.
local function int(number)
  return string.format('%d', number)
end

local meta = call('HMGET', KEYS[1], 'now', 'op', 'epoch', 'seq', 'work', 'wishes', 'ends')
local now
if sub(ARGV[1], 1, 1) == '=' then
  now = tonumber(sub(ARGV[1], 2))
else
  local clock = call('TIME')
  now = clock[1] * 1000000 + clock[2] + ARGV[1]
end
now = math.max(now, tonumber(meta[1] or 0), tonumber(ARGV[2]))
local now_text = int(now)
local seq_before = tonumber(meta[4] or 0)
local seq = seq_before

-- What this script gives a hint of: work, wishes, ends.
local hint = {}
-- By how much the counts have changed: queue → state → number.
local tally = {}
-- What is to be done with many members of a key at once: command → key → arguments.
local plans = {}
-- By id: the two parts of records that were read, as bytes; false: there is none. The same taken apart, where it was
-- needed, and those of them that are to be written.
local stored, moved, cache, dirty, results = {}, {}, {}, {}, {}

--- What scripts do with them.

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

-- The arguments that are planned for a command and a key, to add to.
local function planned(command, key)
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
  return list
end

local function plan(command, key, one, two)
  local list = planned(command, key)
  local size = #list
  list[size + 1] = one
  if two then
    list[size + 2] = two
  end
end

-- Does what is planned, what removes first; needed before a script reads what it has changed, and before it
-- moves a task for the second time.
local ORDER = { 'ZREM', 'SREM', 'HDEL', 'ZADD', 'SADD', 'HSET', 'RPUSH' }
local function flush()
  for at = 1, #ORDER do
    local keys = plans[ORDER[at]]
    if keys then
      for key, arguments in pairs(keys) do
        send(ORDER[at], prefix .. key, arguments)
        -- Emptied in place: somebody may be adding to it.
        for place = #arguments, 1, -1 do
          arguments[place] = nil
        end
      end
    end
  end
end

-- An owner is text in keys and answers, and 16 bytes in records.
local owner_texts, owner_bytes = { [string.rep('\0', 16)] = NOBODY }, { [NOBODY] = string.rep('\0', 16) }
local UUID, DIGITS = '>I4I2I2I2I2I4', '%08x-%04x-%04x-%04x-%04x%08x'
local function owner_text(bytes)
  local text = owner_texts[bytes]
  if not text then
    text = string.format(DIGITS, struct.unpack(UUID, bytes))
    owner_texts[bytes] = text
  end
  return text
end
local function hex(text, from, to)
  return tonumber(sub(text, from, to), 16)
end
local function bytes_of_owner(text)
  local bytes = owner_bytes[text]
  if not bytes then
    bytes = pack(UUID, hex(text, 1, 8), hex(text, 10, 13), hex(text, 15, 18), hex(text, 20, 23), hex(text, 25, 28),
      hex(text, 29, 36))
    owner_bytes[text] = bytes
  end
  return bytes
end

-- The head that these bytes begin with, taken apart once for all that have the same.
local heads = {}
local function head_of(bytes)
  local head = heads[bytes]
  if head then
    return head
  end
  local high, low = byte(bytes, 1, 2)
  bytes = sub(bytes, 1, high * 256 + low)
  head = heads[bytes]
  if head then
    return head
  end
  local _, state, flags = struct.unpack(HEAD, bytes)
  local has_run = bit.band(flags, HAS_RUN) > 0
  local run = has_run and { struct.unpack(RUN, bytes, HEAD_BYTES + 1) } or FRESH
  local lane = sub(bytes, 1 + HEAD_BYTES + (has_run and RUN_BYTES or 0))
  local result = bit.band(flags, IN_RES) > 0 and 1 or bit.band(flags, IN_RUN) > 0 and 2 or 0
  -- With all places at once: a table that grows is copied.
  head = { bytes = bytes, lane = lane, state, 0, 0, 0, 0, 0, 0, 0, result, unpack(run) }
  for at = 1, #FLAGS, 2 do
    head[FLAGS[at]] = bit.band(flags, FLAGS[at + 1]) > 0 and 1 or 0
  end
  if has_run then
    head[OW] = owner_text(head[OW])
  end
  heads[bytes] = head
  return head
end

local function head_bytes(t)
  local flags, run = t[RES] * 32, ''
  for at = 1, #FLAGS, 2 do
    flags = flags + t[FLAGS[at]] * FLAGS[at + 1]
  end
  if t[R] > 0 or t[G] > 0 or t[FA] ~= NEVER then
    flags = flags + HAS_RUN
    run = pack(RUN, bytes_of_owner(t[OW]), unpack(t, CL, FA))
  end
  return pack(HEAD, HEAD_BYTES + #run + #t.lane, t[S], flags) .. run .. t.lane
end

-- A small result as it stands in run.
local function kept_result(result)
  return pack('>I2', #result) .. result
end

local function unpacked(id, record, move)
  local first_head = head_of(record)
  local head, at = move and head_of(move) or first_head, 1 + #first_head.bytes
  local t = { unpack(head, 1, FA) }
  t.id, t.lane = id, head.lane
  t[N], t[RANK], t[RA], t[CA], at = struct.unpack(BODY, record, at)
  t[DL], t.first_run_at = NEVER, t[RA]
  if t[TIL] == 1 then
    t[DL], at = struct.unpack('>i8', record, at)
  end
  t[FP], t.spec = sub(record, at, at + 15), sub(record, at + 16)
  at = 1 + #head.bytes
  if t[LATER] == 1 then
    t[RA], at = struct.unpack('>i8', move, at)
  end
  if t[RES] == 2 then
    t.result = sub(move, at + 2)
  end
  return t
end

-- Where a task stands, as it is kept in run.
local function packed(t)
  t[LATER] = t[RA] ~= t.first_run_at and 1 or 0
  return head_bytes(t) .. (t[LATER] == 1 and pack('>i8', t[RA]) or '') .. (t[RES] == 2 and kept_result(t.result) or '')
end

-- The record has changed.
local function touch(t)
  dirty[t.id] = t
end

-- Reads one part of the records of these ids at once, unless that is known.
local function fetch_part(key, part, ids)
  local unknown, size = {}, 0
  for at = 1, #ids do
    if part[ids[at]] == nil then
      size = size + 1
      unknown[size] = ids[at]
    end
  end
  local found = values(key, unknown)
  for at = 1, size do
    part[unknown[at]] = found[at]
  end
end

local function fetch_moves(ids)
  fetch_part('run', moved, ids)
end

-- Reads the records of these ids at once.
local function fetch(ids)
  fetch_part('rec', stored, ids)
  fetch_moves(ids)
end

-- The record of a task; false if there is none.
local function record(id)
  local t = cache[id]
  if t == nil then
    if stored[id] == nil or moved[id] == nil then
      fetch({ id })
    end
    t = stored[id] and unpacked(id, stored[id], moved[id])
    cache[id] = t
  end
  return t
end

-- Where it stands now, as bytes; false if it has not moved.
local function move_of(id)
  local t = dirty[id]
  if t then
    return packed(t)
  end
  return moved[id]
end

local queues_of = {}
local function queue_of(lane)
  local queue = queues_of[lane]
  if not queue then
    queue = sub(lane, 1, string.find(lane, '\n', 1, true) - 1)
    queues_of[lane] = queue
  end
  return queue
end

local function kind_of(lane)
  return sub(lane, string.find(lane, '\n', 1, true) + 1)
end

-- The order of due tasks: priority (high first), due time, insertion; as bytes that sort so.
-- The time is shifted by 2^52 so that times before 1970 sort too.
local function ready_order(rank, run_at)
  return pack('>I4I8', rank, math.max(run_at + 4503599627370496, 0))
end
local function ready_member(t)
  return ready_order(t[RANK], t[RA]) .. pack('>I8', t[N]) .. t.id
end
local READY_HEAD = 20

-- The same without the time, which is the score.
local function sched_member(t)
  return pack('>I4I8', t[RANK], t[N]) .. t.id
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
local made = {}
local function named(kind, rest)
  local names = made[kind]
  if not names then
    names = {}
    made[kind] = names
  end
  local name = names[rest]
  if not name then
    name = kind .. (rest == NOBODY and '' or rest)
    names[rest] = name
  end
  return name
end

-- Who waits for free slots is told.
local function freed(queue)
  if not hint.work then
    hint.work = is_limited(queue)
  end
end

-- List → how many have left it otherwise than from its front.
local strayed = {}
local function stray(list, by)
  strayed[list] = (strayed[list] or 0) + by
end

-- Whether the task of an entry of a lane's list, which is fetched, is still there.
local function is_listed(member)
  local id = sub(member, READY_HEAD + 1)
  local bytes = stored[id]
  if not bytes or move_of(id) then
    return false
  end
  local head = head_of(bytes)
  return head[LISTED] == 1 and sub(bytes, #head.bytes + 1, #head.bytes + 8) == sub(member, 13, READY_HEAD)
end

-- Those that have succeeded: in order of their ends.
local SUCCEEDED = 'succeeded'
local ENDED_HEAD = 8
local function ended_order(finished_at)
  return pack('>I8', finished_at + 4503599627370496)
end
local function ended_at(member)
  return struct.unpack('>I8', member) - 4503599627370496
end

-- Takes a waiting task out of its order.
local function leave_order(t)
  if t[LISTED] == 1 then
    t[LISTED] = 0
    touch(t)
    stray('due:' .. t.lane, 1)
    return
  end
  plan('ZREM', named('ready:', t.lane), ready_member(t))
  if t[RA] > t[CA] then
    plan('ZREM', named('sched:', t.lane), sched_member(t))
  end
end

-- Takes an ended task out of the order of ends.
local function leave_ended(t)
  if t[LISTED] == 1 then
    t[LISTED] = 0
    touch(t)
    stray(SUCCEEDED, 1)
  else
    plan('ZREM', 'done:' .. t[S], t.id)
  end
end

-- Takes a task out of the places of its state; it is then put into those of another.
local function leave(t)
  local state, id, queue = t[S], t.id, queue_of(t.lane)
  if t.moved then
    flush()
  end
  t.moved = true
  count(queue, state, -1)
  if state == 2 then
    plan('SREM', named('owner:', t[OW]), id)
    if t[C] == 1 then
      call('SREM', prefix .. 'wish:' .. t[OW], id)
    end
    freed(queue)
  elseif state == 1 then
    leave_order(t)
  elseif state == 3 then
    plan('ZREM', 'state:3', id)
    plan('SREM', named('owner:', t[OW]), id)
  elseif state == 4 then
    leave_ended(t)
  else
    plan('ZREM', 'state:' .. state, id)
    if state ~= 0 then
      leave_ended(t)
    end
  end
  if t[TIL] == 1 and state < 2 then
    plan('ZREM', 'deadlines', id)
  end
end

local known_lanes, known_owners = {}, {}

-- A lane has waiting tasks, and hints of them are due.
local function waits_in(lane)
  hint.work = true
  if not known_lanes[lane] then
    known_lanes[lane] = true
    call('SADD', prefix .. 'lanes', lane)
  end
end

local function owns(owner)
  if not known_owners[owner] then
    known_owners[owner] = true
    call('SADD', prefix .. 'owners', owner == NOBODY and '' or owner)
  end
end

-- Puts a task into the places of its state, and has it written.
local function enter(t)
  local state, id = t[S], t.id
  touch(t)
  count(queue_of(t.lane), state, 1)
  if state == 4 then
    t[LISTED] = 1
    plan('RPUSH', SUCCEEDED, ended_order(t[FA]) .. id)
    hint.ends = true
  elseif state == 2 or state == 3 then
    if state == 3 then
      plan('ZADD', 'state:3', t[N], id)
    end
    plan('SADD', named('owner:', t[OW]), id)
    owns(t[OW])
  elseif state == 1 then
    if t[RA] <= now then
      plan('ZADD', named('ready:', t.lane), '0', ready_member(t))
    else
      plan('ZADD', named('sched:', t.lane), int(t[RA]), sched_member(t))
    end
    waits_in(t.lane)
  else
    plan('ZADD', 'state:' .. state, t[N], id)
    if state ~= 0 then
      plan('ZADD', 'done:' .. state, int(t[FA]), id)
      hint.ends = true
    end
  end
  if t[TIL] == 1 and state < 2 then
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

-- Gives a task that is in no place another rank.
local function prioritise(t, rank)
  local bytes = stored[t.id]
  local at = #head_of(bytes).bytes + 8
  t[RANK] = rank
  bytes = sub(bytes, 1, at) .. pack('>I4', rank) .. sub(bytes, at + 5)
  stored[t.id] = bytes
  plan('HSET', 'rec', t.id, bytes)
end

-- Keeps the key of the stored result that a task no longer refers to, if there is one.
local function discard(t)
  local key = t[DET] == 1 and call('HGET', detail_key(t.id), 'gk')
  if key then
    plan('ZADD', 'garbage', 0, key)
  end
end

-- Where the task of a number stands: its page, and its place there from 0 on.
local PAGE = 1000
local function place_of(number)
  return math.floor((number - 1) / PAGE), (number - 1) % PAGE
end

-- Takes a task off its page. A page without tasks goes at once.
local function leave_page(t)
  local page, at = place_of(t[N])
  if call('HINCRBY', prefix .. 'alive', page, -1) > 0 then
    call('LSET', prefix .. 'page:' .. page, at, '')
  elseif (page + 1) * PAGE <= seq then
    call('UNLINK', prefix .. 'page:' .. page)
    call('ZREM', prefix .. 'pages', page)
    call('HDEL', prefix .. 'alive', page)
  else
    call('LSET', prefix .. 'page:' .. page, at, '')
  end
end

-- Removes a task and leaves a tombstone.
local function remove(t)
  local id = t.id
  discard(t)
  leave(t)
  leave_page(t)
  plan('HSET', 'tomb', id, t[FP] .. now_text)
  plan('ZADD', 'tombs', now_text, id)
  plan('HDEL', 'rec', id)
  plan('HDEL', 'run', id)
  if t[SEP] == 1 then
    plan('HDEL', 'spec', id)
  end
  if t[RES] == 1 then
    plan('HDEL', 'res', id)
  end
  if t[DET] == 1 then
    call('UNLINK', detail_key(id))
  end
  cache[id], stored[id], moved[id], dirty[id] = false, false, false, nil
  hint.ends = true
end

-- What is told of tasks: { ids, records, moves, each move once, the rest }. A move is the number of its bytes, 0 if there
-- is none. The rest is, of each task whose head says that they are there: spec, inline result, details. Few lists and few
-- strings, because each costs as much as some commands.
local function tell_of(ids, records, moves)
  local numbers, told, rest = {}, {}, {}
  for at = 1, #ids do
    local record, move = records[at], moves[at]
    local number = move and numbers[move] or 0
    if move and number == 0 then
      number = #told + 1
      numbers[move], told[number] = number, move
    end
    moves[at] = number
    if record then
      local id, head = ids[at], head_of(move or record)
      if head[SEP] == 1 then
        rest[#rest + 1] = call('HGET', prefix .. 'spec', id)
      end
      if head[RES] == 1 then
        rest[#rest + 1] = results[id] or call('HGET', prefix .. 'res', id)
      end
      if head[DET] == 1 then
        rest[#rest + 1] = call('HGETALL', detail_key(id))
      end
    else
      records[at] = ''
    end
  end
  return { ids, records, moves, told, rest }
end

local function tell(ids)
  fetch(ids)
  local records, moves = {}, {}
  for at = 1, #ids do
    records[at], moves[at] = stored[ids[at]], move_of(ids[at])
  end
  return tell_of(ids, records, moves)
end

-- The labels of a task.
local function labels_of(t)
  local spec = t[SEP] == 1 and call('HGET', prefix .. 'spec', t.id) or t.spec
  local size = struct.unpack('>I4', spec)
  return size > 0 and cjson.decode(sub(spec, 5, 4 + size)).labels or {}
end

-- Whether a lease has ended, or ends later than any heartbeat could have made it.
local function is_expired(expires_at, ttl)
  expires_at = tonumber(expires_at)
  return now >= expires_at or expires_at > now + tonumber(ttl)
end

-- Why a replica may not claim or rescue; nil if it is registered and alive, and then whether it is to take nothing more.
local function not_living(replica)
  local row = call('HMGET', prefix .. 'rep:' .. replica, 'dead', 'exp', 'ttl', 'drain')
  if not row[1] then
    return 'is unknown to the store'
  elseif row[1] == '1' then
    return 'was declared dead or has left'
  elseif is_expired(row[2], row[3]) then
    return 'has not renewed its lease in time'
  end
  return nil, row[4] == '1'
end

-- Writes the records that have changed, inline results, and what else is planned.
local function write_back()
  for id in pairs(dirty) do
    plan('HSET', 'run', id, move_of(id))
  end
  for id, bytes in pairs(results) do
    plan('HSET', 'res', id, bytes)
  end
  flush()
  for list, by in pairs(strayed) do
    if by ~= 0 and call('HINCRBY', prefix .. 'gone', list, by) == 0 then
      call('HDEL', prefix .. 'gone', list)
    end
  end
  for queue, states in pairs(tally) do
    for state, by in pairs(states) do
      if by ~= 0 then
        call('HINCRBY', prefix .. 'count:' .. queue, state, by)
      end
    end
  end
end

-- A counter of `Changes`; one more if there is a hint.
local function counter(name, value)
  if not hint[name] then
    return value or '0'
  end
  value = int((value or 0) + 1)
  plan('HSET', 'meta', name, value)
  return value
end

-- Writes what every writing script writes, and makes its answer.
local function finish(body)
  local seen, op, epoch = tonumber(ARGV[4]), tonumber(meta[2] or 0), meta[3] or '0'
  if seen > 0 and tonumber(call('ZSCORE', prefix .. 'handles', ARGV[3]) or 0) < seen then
    -- A write of this handle was acknowledged and is not there.
    epoch = int(epoch + 1)
    op = math.max(op, seen)
    plan('HSET', 'meta', 'epoch', epoch)
  end
  op = int(op + 1)
  local work, wishes, ends = counter('work', meta[5]), counter('wishes', meta[6]), counter('ends', meta[7])
  plan('HSET', 'meta', 'now', now_text)
  plan('HSET', 'meta', 'op', op)
  if seq ~= seq_before then
    plan('HSET', 'meta', 'seq', int(seq))
  end
  plan('ZADD', 'handles', op, ARGV[3])
  write_back()
  if hint.work or hint.wishes or hint.ends then
    call('PUBLISH', prefix .. 'hint', work .. ' ' .. wishes .. ' ' .. ends)
  end
  return { now_text, op, epoch, work, wishes, ends, body }
end
