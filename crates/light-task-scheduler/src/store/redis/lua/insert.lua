-- Takes tasks in.
--
-- ARGV from 5: eleven for each task: id, 1 if the id was made just now, queue, kind, payload, priority,
--   start (now, at, after, held), its time or delay, deadline or '', options (JSON) or '', fingerprint
-- Answers for each task: 'n' taken in, 'eN' the same is there in state N, 'r' the same was removed,
--   'c' the id belongs to another

local STRIDE = 11
local TOMBSTONE_TTL = 86400000000
local FINGERPRINT_BYTES = 16
local known_queues = {}

-- The answer for an id that is or was in use; nil if it is free.
local function taken(id, fingerprint)
  local there = call('HMGET', key_of(id), 's', 'fp')
  if there[1] then
    return there[2] == fingerprint and 'e' .. there[1] or 'c'
  end
  local tomb = call('HGET', prefix .. 'tomb', id)
  if not tomb then
    return nil
  end
  if now < tonumber(string.sub(tomb, FINGERPRINT_BYTES + 1)) + TOMBSTONE_TTL then
    return string.sub(tomb, 1, FINGERPRINT_BYTES) == fingerprint and 'r' or 'c'
  end
  call('HDEL', prefix .. 'tomb', id)
  move('tombs', id, false)
end

local function insert(at)
  local id, queue, kind = ARGV[at], ARGV[at + 2], ARGV[at + 3]
  local start, time, deadline, options = ARGV[at + 6], ARGV[at + 7], ARGV[at + 8], ARGV[at + 9]
  seq = seq + 1
  local t = { id = id, n = int(seq), q = queue, k = kind, s = '1', ra = now_text }
  if start == 'held' then
    t.s = '0'
  elseif start == 'at' then
    t.ra = time
  elseif start == 'after' then
    -- The last time that can be printed (the end of the year 9999) is no exact number here.
    local due = now + tonumber(time)
    t.ra = due < 253402207200000000 and int(due) or '253402207200000000'
  end
  local fields = { 'n', t.n, 'q', queue, 'k', kind, 's', t.s, 'ra', t.ra, 'ca', now_text,
    'fp', ARGV[at + 10], 'p', ARGV[at + 4] }
  if ARGV[at + 5] ~= '0' then
    t.pr = ARGV[at + 5]
    fields[#fields + 1] = 'pr'
    fields[#fields + 1] = t.pr
  end
  if deadline ~= '' then
    t.dl = deadline
    fields[#fields + 1] = 'dl'
    fields[#fields + 1] = deadline
  end
  if options ~= '' then
    fields[#fields + 1] = 'o'
    fields[#fields + 1] = options
  end
  call('HSET', key_of(id), unpack(fields))
  move('all', id, t.n)
  enter(t)
  if not known_queues[queue] then
    known_queues[queue] = true
    call('SADD', prefix .. 'queues', queue)
  end
  return 'n'
end

local answers = {}
for at = first, #ARGV, STRIDE do
  local made_now = ARGV[at + 1] == '1'
  answers[#answers + 1] = not made_now and taken(ARGV[at], ARGV[at + 10]) or insert(at)
end
return finish(answers)
