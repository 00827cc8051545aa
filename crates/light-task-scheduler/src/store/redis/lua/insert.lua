-- Takes tasks in.
--
-- ARGV from 5: nine for each task: id, 1 if the id was made just now, lane, rank (2147483647 - priority),
--   start (now, at, after, held), its time or delay, deadline or '', fingerprint, spec (see the prelude)
-- Answers for each task: 'n' taken in, 'eN' the same is there in state N, 'r' the same was removed,
--   'c' the id belongs to another

local STRIDE = 9
local TOMBSTONE_TTL = 86400000000
local FINGERPRINT_BYTES = 16
-- The last time that can be printed: the end of the year 9999.
local LAST_TIME = 253402207200000000
local known_queues = {}

-- The answer for an id that is or was in use; nil if it is free.
local function taken(id, fingerprint)
  local t = record(id)
  if t then
    return t[FP] == fingerprint and 'e' .. t[S] or 'c'
  end
  local tomb = call('HGET', prefix .. 'tomb', id)
  if not tomb then
    return nil
  end
  if now < tonumber(string.sub(tomb, FINGERPRINT_BYTES + 1)) + TOMBSTONE_TTL then
    return string.sub(tomb, 1, FINGERPRINT_BYTES) == fingerprint and 'r' or 'c'
  end
  call('HDEL', prefix .. 'tomb', id)
  plan('ZREM', 'tombs', id)
end

local function insert(at)
  local id, lane, start, deadline = ARGV[at], ARGV[at + 2], ARGV[at + 4], ARGV[at + 6]
  seq = seq + 1
  local state, run_at = 1, now
  if start == 'held' then
    state = 0
  elseif start == 'at' then
    run_at = tonumber(ARGV[at + 5])
  elseif start == 'after' then
    run_at = math.min(now + tonumber(ARGV[at + 5]), LAST_TIME)
  end
  local t = { state, 0, 0, 0, 0, seq, tonumber(ARGV[at + 3]), run_at, deadline == '' and NEVER or tonumber(deadline),
    now, NOBODY, 0, 0, 0, 0, 0, 0, 0, NEVER, NEVER, ARGV[at + 7] }
  t.id, t.lane = id, lane
  cache[id] = t
  plan('HSET', 'spec', id, ARGV[at + 8])
  plan('ZADD', 'all', seq, id)
  enter(t)
  local queue = queue_of(lane)
  if not known_queues[queue] then
    known_queues[queue] = true
    call('SADD', prefix .. 'queues', queue)
  end
  return 'n'
end

local answers = {}
for at = first, #ARGV, STRIDE do
  local made_now = ARGV[at + 1] == '1'
  answers[#answers + 1] = not made_now and taken(ARGV[at], ARGV[at + 7]) or insert(at)
end
return finish(answers)
