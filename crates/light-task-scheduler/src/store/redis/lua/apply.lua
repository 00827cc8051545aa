-- Applies what owners report, each only with the current token.
--
-- ARGV from 7: eight for each change: id, owner, run, event, and four of the event:
--   S started: 1 or '', handle     P progress: JSON          U stop unconfirmed
--   O outcome: 1 or '', output     C complete: i, bytes, '' or s, JSON, key; then for the last see below
--   R retry, L release: time, kind and JSON of the failure   F fail: '', kind, JSON
--   X cancelled
--   The fourth of O, C, R, L, F and X: the failure (JSON) if the task was cancelled instead
-- Answers for each change: 'aN' applied, now in state N; 'yN' applied before; 'eN' its run has ended;
--   'iN' impossible; 's' stale; 'n' not requested; 'm' there is no such task

local STRIDE = 8
local TARGETS = { O = '3', C = '4', R = '1', L = '1', F = '5', X = '6' }

local function number(t, field)
  return tonumber(call('HGET', key_of(t.id), field) or 0)
end

-- A change that does not lead to another state.
local function noted(t, event, one, two)
  local key = key_of(t.id)
  if event == 'P' then
    call('HSET', key, 'pg', one)
  elseif event == 'U' then
    call('HSET', key, 'u', '1')
  elseif one == '1' then
    call('HSET', key, 'h', two)
  else
    call('HDEL', key, 'h')
  end
  return 'a2'
end

local function wait(t, at, kind, failure, set, gone)
  unsuccessful(t, kind, failure, set, gone)
  gone[#gone + 1] = 'u'
  set.ra = at
  save(t, '1', set, gone)
end

local function running(t, event, one, two, three, four)
  if not TARGETS[event] then
    return noted(t, event, one, two)
  end
  local set, gone = {}, {}
  if t.c then
    -- The flag was stored first: whatever the run reports of its end, the task is cancelled.
    unsuccessful(t, 'cancelled', four, set, gone)
    finished(t, '6', set, gone)
  elseif event == 'X' then
    return 'n'
  elseif event == 'O' then
    if one == '1' then
      set.out = two
    else
      gone[#gone + 1] = 'out'
    end
    gone[#gone + 1] = 'u'
    save(t, '3', set, gone)
  elseif event == 'C' then
    complete(t, one, two, three)
  elseif event == 'R' then
    gone[#gone + 1] = 'l'
    wait(t, one, two, three, set, gone)
  elseif event == 'L' then
    set.i = int(number(t, 'i') + 1)
    if two == 'lost' then
      set.l = int(number(t, 'l') + 1)
    end
    wait(t, one, two, three, set, gone)
  elseif event == 'F' then
    unsuccessful(t, two, three, set, gone)
    finished(t, '5', set, gone)
  end
  return 'a' .. t.s
end

local function exporting(t, event, one, two, three)
  if event == 'O' then
    return 'y3'
  elseif event == 'C' then
    complete(t, one, two, three)
  elseif event == 'F' then
    -- Output and handle stay: `retry export` needs them.
    local set, gone = {}, {}
    set.h = call('HGET', key_of(t.id), 'h') or nil
    unsuccessful(t, two, three, set, gone)
    if set.h then
      gone = { 'pg' }
    end
    finished(t, '5', set, gone)
  else
    return 'i3'
  end
  return 'a' .. t.s
end

local function apply(at)
  local event = ARGV[at + 3]
  local t = load(ARGV[at], PLACE)
  if not t then
    return 'm'
  elseif t.ow ~= ARGV[at + 1] or (t.r or '0') ~= ARGV[at + 2] then
    return 's'
  elseif t.s == '2' then
    return running(t, event, ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7])
  elseif t.s == '3' then
    return exporting(t, event, ARGV[at + 4], ARGV[at + 5], ARGV[at + 6])
  end
  -- The owner stays in the row after the end, so that a repeated report is told from a stale one.
  local target = TARGETS[event]
  if target and (target == t.s or t.s == '6' and t.c) then
    return 'y' .. t.s
  end
  return 'e' .. t.s
end

local answers = {}
for at = first, #ARGV, STRIDE do
  answers[#answers + 1] = apply(at)
end
return finish(answers)
