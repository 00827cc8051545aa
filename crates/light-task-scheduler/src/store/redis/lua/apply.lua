-- Applies what owners report, each only with the current token.
--
-- ARGV from 7: failures (JSON) of a task that is cancelled, and of one that was before its run succeeded;
--   then eight for each change: id, owner, run, event, and four of the event:
--   S started: 1 or '', handle     P progress: JSON          U stop unconfirmed
--   O outcome: 1 or '', output     C complete: i, bytes or s, JSON, key
--   R retry, L release: time, kind and JSON of the failure, its JSON if the task was cancelled before
--   F fail: '', and like these     X cancelled
-- Answers for each change: 'aN' applied, now in state N; 'yN' applied before; 'eN' its run has ended;
--   'iN' impossible; 's' stale; 'n' not requested; 'm' there is no such task

local CANCELLED, CANCELLED_AFTER_SUCCESS = ARGV[first], ARGV[first + 1]
first = first + 2
local STRIDE = 8
local TARGETS = { O = 3, C = 4, R = 1, L = 1, F = 5, X = 6 }

-- A change that does not lead to another state.
local function noted(t, event, one, two)
  if event == 'P' then
    set_details(t, 'pg', one)
  elseif event == 'U' then
    t[U] = 1
    touch(t)
  elseif one == '1' then
    set_details(t, 'h', two)
  else
    forget_details(t, 'h')
  end
  return 'a2'
end

local function running(t, event, one, two, three, four)
  if not TARGETS[event] then
    return noted(t, event, one, two)
  elseif t[C] == 1 then
    -- The flag was stored first: whatever the run reports of its end, the task is cancelled.
    local succeeded = event == 'O' or event == 'C'
    unsuccessful(t, 'cancelled', succeeded and CANCELLED_AFTER_SUCCESS or event == 'X' and CANCELLED or four)
    go(t, 6)
  elseif event == 'X' then
    return 'n'
  elseif event == 'C' then
    complete(t, one, two, three)
  elseif event == 'O' then
    if one == '1' then
      set_details(t, 'out', two)
    else
      forget_details(t, 'out')
    end
    go(t, 3)
  elseif event == 'F' then
    unsuccessful(t, two, three)
    go(t, 5)
  else
    if event == 'R' then
      t[L] = 0
    else
      t[I] = t[I] + 1
      t[L] = t[L] + (two == 'lost' and 1 or 0)
    end
    unsuccessful(t, two, three)
    go(t, 1, tonumber(one))
  end
  return 'a' .. t[S]
end

local function exporting(t, event, one, two, three)
  if event == 'O' then
    return 'y3'
  elseif event == 'C' then
    complete(t, one, two, three)
  elseif event == 'F' then
    -- Output and handle stay: `retry export` needs them.
    local kept = t[DET] == 1 and call('HGET', detail_key(t.id), 'h')
    unsuccessful(t, two, three)
    if kept then
      set_details(t, 'h', kept)
    end
    go(t, 5)
  else
    return 'i3'
  end
  return 'a' .. t[S]
end

local function apply(at)
  local t, event = record(ARGV[at]), ARGV[at + 3]
  if not t then
    return 'm'
  elseif t[OW] ~= ARGV[at + 1] or t[R] ~= tonumber(ARGV[at + 2]) then
    return 's'
  elseif t[S] == 2 then
    return running(t, event, ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7])
  elseif t[S] == 3 then
    return exporting(t, event, ARGV[at + 4], ARGV[at + 5], ARGV[at + 6])
  end
  -- The owner stays in the record after the end, so that a repeated report is told from a stale one.
  local target = TARGETS[event]
  if target and (target == t[S] or t[S] == 6 and t[C] == 1) then
    return 'y' .. t[S]
  end
  return 'e' .. t[S]
end

local ids = {}
for at = first, #ARGV, STRIDE do
  ids[#ids + 1] = ARGV[at]
end
fetch(ids)
local answers = {}
for at = 1, #ids do
  answers[at] = apply(first + (at - 1) * STRIDE)
end
return finish(answers)
