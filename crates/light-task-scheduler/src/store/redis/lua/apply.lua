-- Applies what owners report, each only with the current token.
--
-- ARGV from 7: failures (JSON) of a task that is cancelled, and of one that was before its run succeeded;
--   then the changes in groups with the same event and token: event, owner, run, how many, and for each of
--   them its id and what the event has:
--   S started: handle          N started, without a handle    P progress: JSON     U stop unconfirmed
--   O outcome: output          E outcome without an output    X cancelled
--   C complete, c the same with a result too large for the record: bytes    D complete: JSON, key
--   R retry, L release: time, kind and JSON of the failure, its JSON if the task was cancelled before
--   F fail: '', and like these
-- Answers for each change: 'aN' applied, now in state N; 'yN' applied before; 'eN' its run has ended;
--   'iN' impossible; 's' stale; 'n' not requested; 'm' there is no such task

local CANCELLED, CANCELLED_AFTER_SUCCESS = ARGV[first], ARGV[first + 1]
first = first + 2
local TARGETS = { O = 3, E = 3, C = 4, c = 4, D = 4, R = 1, L = 1, F = 5, X = 6 }
local ARGUMENTS = { S = 1, N = 0, P = 1, U = 0, O = 1, E = 0, X = 0, C = 1, c = 1, D = 2, R = 4, L = 4, F = 4 }

-- A change that does not lead to another state.
local function noted(t, event, one)
  if event == 'P' then
    set_details(t, 'pg', one)
  elseif event == 'U' then
    t[U] = 1
    touch(t)
  elseif event == 'S' then
    set_details(t, 'h', one)
  else
    forget_details(t, 'h')
  end
  return 'a2'
end

local function running(t, event, one, two, three, four)
  if not TARGETS[event] then
    return noted(t, event, one)
  elseif t[C] == 1 then
    -- The flag was stored first: whatever the run reports of its end, the task is cancelled.
    local success = TARGETS[event] == 3 or TARGETS[event] == 4
    unsuccessful(t, 'cancelled', success and CANCELLED_AFTER_SUCCESS or event == 'X' and CANCELLED or four)
    go(t, 6)
  elseif event == 'X' then
    return 'n'
  elseif TARGETS[event] == 4 then
    complete(t, event, one, two)
  elseif event == 'O' then
    set_details(t, 'out', one)
    go(t, 3)
  elseif event == 'E' then
    forget_details(t, 'out')
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
  if TARGETS[event] == 3 then
    return 'y3'
  elseif TARGETS[event] == 4 then
    complete(t, event, one, two)
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

local function apply(group, id, at)
  local t, event = record(id), group.event
  if not t then
    return 'm'
  elseif t[OW] ~= group.owner or t[R] ~= group.run then
    return 's'
  elseif t[S] == 2 then
    return running(t, event, ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
  elseif t[S] == 3 then
    return exporting(t, event, ARGV[at], ARGV[at + 1], ARGV[at + 2])
  end
  -- The owner stays in the record after the end, so that a repeated report is told from a stale one.
  local target = TARGETS[event]
  if target and (target == t[S] or t[S] == 6 and t[C] == 1) then
    return 'y' .. t[S]
  end
  return 'e' .. t[S]
end

local groups, ids = {}, {}
local place = first
while place <= #ARGV do
  local event, tasks = ARGV[place], tonumber(ARGV[place + 3])
  local group = { event = event, owner = ARGV[place + 1], run = tonumber(ARGV[place + 2]), tasks = tasks }
  group.from, group.stride = place + 4, 1 + ARGUMENTS[event]
  place = group.from + tasks * group.stride
  for at = group.from, place - 1, group.stride do
    ids[#ids + 1] = ARGV[at]
  end
  groups[#groups + 1] = group
end
fetch(ids)

-- Ends what has simply succeeded: it is enough to look at the head. Answers nil if it is not so simple.
local records = planned('HSET', 'rec')
local function succeed(group, id, result)
  local bytes = not cache[id] and stored[id]
  if not bytes then
    return nil
  end
  local head = head_of(bytes)
  local move = group.moves[head]
  if move == nil then
    move = head[OW] == group.owner and head[R] == group.run and succeeded(head) or false
    group.moves[head] = move
  end
  if not move then
    return nil
  end
  move.tasks = move.tasks + 1
  local kept = group.kept[result]
  if not kept then
    kept = kept_result(result)
    group.kept[result] = kept
  end
  bytes = move.bytes .. kept .. sub(bytes, #head.bytes + 1)
  stored[id] = bytes
  local size, left, done = #records, group.left, group.done
  records[size + 1], records[size + 2] = id, bytes
  left[#left + 1] = id
  size = #done
  done[size + 1], done[size + 2] = now_text, id
  return 'a4'
end

local answers = {}
for _, group in ipairs(groups) do
  if group.event == 'C' then
    group.moves, group.kept = {}, {}
    group.left, group.done = planned('HDEL', 'owner:' .. group.owner), planned('ZADD', 'done:4')
  end
  for at = group.from, group.from + (group.tasks - 1) * group.stride, group.stride do
    local id = ARGV[at]
    answers[#answers + 1] = group.moves and succeed(group, id, ARGV[at + 1]) or apply(group, id, at + 1)
  end
  for _, move in pairs(group.moves or {}) do
    if move then
      count(queue_of(move.lane), 2, -move.tasks)
      count(queue_of(move.lane), 4, move.tasks)
      freed(queue_of(move.lane))
      hint.ends = true
    end
  end
end
return finish(answers)
