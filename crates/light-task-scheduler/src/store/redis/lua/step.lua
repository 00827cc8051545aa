-- How a record moves: `state::step` in Lua, for the scripts that change tasks. The conformance suite holds
-- both to the same answers.
--
-- The texts of failures that the store itself makes come from Rust, from 5 on:
--   ARGV[5] expired, ARGV[6] cancelled before it ran (both a failure as JSON); scripts count from `first`

local EXPIRED, CANCELLED_EARLY = ARGV[5], ARGV[6]
first = 7

-- How many unsuccessful attempts a task remembers.
local ATTEMPTS_MAX = 20

-- Adds a line to the history of attempts and cuts it at its bound.
local function remembered(history, line)
  history = (history or '') .. line .. '\n'
  local _, lines = string.gsub(history, '\n', '\n')
  for _ = ATTEMPTS_MAX + 1, lines do
    history = sub(history, string.find(history, '\n', 1, true) + 1)
  end
  return history
end

-- Appends the attempt to the history and forgets its run.
local function unsuccessful(t, kind, failure)
  forget_details(t, 'h', 'pg')
  -- A busy executor says so again and again; that is no history worth keeping.
  if kind ~= 'busy' and t[OW] ~= NOBODY then
    local started = t[SA] == NEVER and now or t[SA]
    local line = { int(t[A]), int(t[X]), t[OW], int(started), now_text, failure }
    local history = t[DET] == 1 and call('HGET', detail_key(t.id), 'at')
    set_details(t, 'f', failure, 'fk', kind, 'at', remembered(history, table.concat(line, ' ')))
  else
    set_details(t, 'f', failure, 'fk', kind)
  end
end

-- To another state, with its places; what else changes must have changed before, but for what places depend on.
local function go(t, state, run_at)
  leave(t)
  if t[S] == 2 and state ~= 2 then
    drop_report(t)
  end
  t[S] = state
  if state ~= 2 then
    t[U] = 0
  end
  if run_at then
    t[RA] = run_at
  end
  if state >= 4 then
    t[FA] = now
  end
  enter(t)
end

-- The result is C inline and small, c inline, D stored.
local function complete(t, event, value, key)
  forget_details(t, 'out', 'h', 'f', 'fk')
  if event == 'C' then
    t.result, t[RES] = value, 2
  elseif event == 'c' then
    results[t.id], t[RES] = value, 1
  else
    set_details(t, 'rr', value, 'gk', key)
  end
  t[L] = 0
  go(t, 4)
end

-- A task whose deadline has passed before it could run.
local function expire(t)
  set_details(t, 'f', EXPIRED, 'fk', 'deadline')
  go(t, 5)
end

-- A live replica takes a task over.
local function adopt(t, owner)
  leave(t)
  local reported = t[S] == 2 and t[DET] == 1 and call('HEXISTS', detail_key(t.id), 'rx') == 1
  if reported then
    call('SREM', prefix .. 'post:' .. t[OW], t.id)
    call('SADD', prefix .. 'post:' .. owner, t.id)
  end
  t[OW], t[CL], t[R] = owner, 0, t[R] + 1
  enter(t)
  if t[S] == 2 and t[C] == 1 then
    call('SADD', prefix .. 'wish:' .. owner, t.id)
  end
end

-- The two moves that nearly all tasks make change nothing but the head: they are worked out once for all tasks with the
-- same head.

local function changed(head)
  return { bytes = false, lane = head.lane, tasks = 0, unpack(head, 1, FA) }
end

local function finished(to)
  to.bytes = head_bytes(to)
  heads[to.bytes] = to
  return to
end

-- The head of a waiting task after its claim.
local function claimed(head, owner, number)
  local to = changed(head)
  to[S], to[OW], to[CL], to[R], to[X], to[A], to[SA] = 2, owner, number, to[R] + 1, to[R] + 1, to[A] + 1, now
  to[LISTED] = 0
  return finished(to)
end

-- Whether the success of a task that is there, with a small result, changes no more than its head.
local function is_simple(head)
  return head[S] == 2 and head[C] == 0 and head[DET] == 0
end

-- The head of such a task after its success.
local function succeeded(head)
  local to = changed(head)
  to[S], to[U], to[RES], to[L], to[FA], to[LISTED] = 4, 0, 2, 0, now, 1
  return finished(to)
end
