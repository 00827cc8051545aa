-- Applies what operators wish.
--
-- ARGV from 7: four for each command: id; start, cancel, requeue, export, delete or reschedule; of the last the new
--   run_at and the new rank (2147483647 - priority), empty: as it is
-- Answers for each command, all in one text: 'aN' applied, now in state N; 'r ' removed; 'yN' applied before;
--   'iN' impossible in state N; 'tN' too late; 'm ' there is no such task

local function start(t)
  if t[S] == 1 then
    return 'y1'
  elseif t[S] ~= 0 then
    return 'i' .. t[S]
  end
  go(t, 1, math.max(t[RA], now))
end

local function cancel(t)
  if t[S] < 2 then
    set_details(t, 'f', CANCELLED_EARLY, 'fk', 'cancelled')
    go(t, 6)
  elseif t[S] == 6 or t[S] == 2 and t[C] == 1 then
    return 'y' .. t[S]
  elseif t[S] == 2 then
    t[C] = 1
    touch(t)
    call('SADD', prefix .. 'wish:' .. t[OW], t.id)
    hint.wishes = true
  else
    return 't' .. t[S]
  end
end

-- Run, execution and the history stay.
local function requeue(t)
  if t[S] < 4 then
    return 'i' .. t[S]
  end
  discard(t)
  forget_details(t, 'h', 'pg', 'out', 'rr', 'gk', 'f', 'fk')
  if t[RES] == 1 then
    call('HDEL', prefix .. 'res', t.id)
  end
  leave(t)
  t[S], t[C], t[U], t[RES], t[RA], t[OW], t[CL] = 1, 0, 0, 0, now, NOBODY, 0
  t[G], t[A], t[I], t[L], t[SA], t[FA] = t[G] + 1, 0, 0, 0, NEVER, NEVER
  enter(t)
end

local function export(t)
  if t[S] ~= 5 or t[DET] == 0 or call('HGET', detail_key(t.id), 'fk') ~= 'export' then
    return 'i' .. t[S]
  end
  leave(t)
  t[S], t[FA], t[OW], t[CL] = 3, NEVER, NOBODY, 0
  enter(t)
  -- Any replica may adopt the export.
  hint.work = true
end

local function delete(t)
  if t[S] ~= 0 and t[S] < 4 then
    return 'i' .. t[S]
  end
  remove(t)
  return 'r '
end

-- What is due stays in its place whichever time of the past is wished.
local function reschedule(t, run_at, rank)
  if t[S] > 1 then
    return 'i' .. t[S]
  end
  local at = math.max(tonumber(run_at) or t[RA], now)
  local moves = at ~= math.max(t[RA], now)
  if not moves and rank == '' then
    return 'y' .. t[S]
  end
  leave(t)
  if moves then
    t[RA] = at
  end
  if rank ~= '' then
    prioritise(t, tonumber(rank))
  end
  enter(t)
end

local COMMANDS = { start = start, cancel = cancel, requeue = requeue, export = export, delete = delete,
  reschedule = reschedule }

local ids = {}
for at = first, #ARGV, 4 do
  ids[#ids + 1] = ARGV[at]
end
fetch(ids)
local answers = {}
for at = 1, #ids do
  local t = record(ids[at])
  local of = first + 4 * (at - 1)
  answers[at] = not t and 'm ' or COMMANDS[ARGV[of + 1]](t, ARGV[of + 2], ARGV[of + 3]) or 'a' .. t[S]
end
return finish(table.concat(answers))
