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
-- Answers for each change, all in one text: 'aN' applied, now in state N; 'yN' applied before; 'eN' its run has ended;
--   'iN' impossible; 's ' stale; 'n ' not requested; 'm ' there is no such task

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
    return 'n '
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
    return 'm '
  elseif t[OW] ~= group.owner or t[R] ~= group.run then
    return 's '
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

local moves = planned('HSET', 'run')
local ended = ended_order(now)
local answers = {}

-- What becomes of a task that stands where `bytes` says, by its simple success; false if it is none.
local function success(group, bytes)
  local head = head_of(bytes)
  if not is_simple(head) or head[OW] ~= group.owner or head[R] ~= group.run then
    return false
  end
  local to = succeeded(head)
  -- A run_at of its own stays behind the head. By result: all of it.
  to.begin, to.with = to.bytes .. sub(bytes, #head.bytes + 1), {}
  return to
end

-- Reads where the tasks of a group stand, and the records of those that do not simply succeed.
local function fetch_for_success(group)
  local ids, from, hard = group.ids, {}, {}
  local found = values('run', ids)
  for at = 1, #ids do
    local bytes = found[at]
    if bytes and from[bytes] == nil then
      from[bytes] = success(group, bytes)
    end
    if not (bytes and from[bytes]) then
      hard[#hard + 1] = ids[at]
    end
  end
  fetch(hard)
  return found, from
end

-- Ends what has simply succeeded: it is enough to look at the head. What has not is left to `apply`.
local function succeed(group, left, done)
  local found, from = fetch_for_success(group)
  local ids, argv, place = group.ids, ARGV, group.from + 1
  local size, left_size, done_size = #moves, #left, #done
  for at = 1, #ids do
    local id, result = ids[at], argv[place]
    local to = moved[id] == nil and not cache[id] and from[found[at]]
    if to then
      local bytes = to.with[result]
      if not bytes then
        bytes = to.begin .. kept_result(result)
        to.with[result] = bytes
      end
      to.tasks, moved[id] = to.tasks + 1, bytes
      moves[size + 1], moves[size + 2] = id, bytes
      size, left_size, done_size = size + 2, left_size + 1, done_size + 1
      left[left_size], done[done_size], group.answers[at] = id, ended .. id, 'a4'
    else
      group.answers[at] = apply(group, id, place)
      -- It plans as well.
      size, left_size, done_size = #moves, #left, #done
    end
    place = place + 2
  end
  for _, to in pairs(from) do
    if to and to.tasks > 0 then
      count(queue_of(to.lane), 2, -to.tasks)
      count(queue_of(to.lane), 4, to.tasks)
      freed(queue_of(to.lane))
      hint.ends = true
    end
  end
end

local function apply_all(group)
  fetch(group.ids)
  for at = 1, #group.ids do
    group.answers[at] = apply(group, group.ids[at], group.from + (at - 1) * group.stride + 1)
  end
end

local place = first
while place <= #ARGV do
  local event, tasks = ARGV[place], tonumber(ARGV[place + 3])
  local group = { event = event, owner = ARGV[place + 1], run = tonumber(ARGV[place + 2]), from = place + 4,
    stride = 1 + ARGUMENTS[event], ids = {}, answers = {} }
  for at = 1, tasks do
    group.ids[at] = ARGV[group.from + (at - 1) * group.stride]
  end
  if event == 'C' then
    succeed(group, planned('SREM', 'owner:' .. group.owner), planned('RPUSH', SUCCEEDED))
  else
    apply_all(group)
  end
  answers[#answers + 1] = table.concat(group.answers)
  place = group.from + tasks * group.stride
end
return finish(table.concat(answers))
