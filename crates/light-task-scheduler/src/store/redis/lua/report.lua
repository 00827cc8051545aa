-- Keeps what executions push, until their owner fetches it.
--
-- ARGV from 5: six for each report: id, execution, 1 if an outcome or 0, JSON, 1 if it has an output or 0, output
-- Answers for each report: 1 taken, 0 not of the current execution of a running task

local STRIDE = 6

local function keep(at)
  local id, execution = ARGV[at], ARGV[at + 1]
  local key = key_of(id)
  local row = call('HMGET', key, 's', 'x', 'rx', 're', 'ow')
  if row[1] ~= '2' or (row[2] or '0') ~= execution then
    return 0
  end
  -- The first outcome of an execution is kept; anything replaces a progress, or what an earlier execution said.
  if row[3] == execution and row[4] == '1' then
    return 1
  end
  call('HSET', key, 'rx', execution, 're', ARGV[at + 2], 'rs', ARGV[at + 3])
  if ARGV[at + 4] == '1' then
    call('HSET', key, 'ro', ARGV[at + 5])
    call('HDEL', key, 'rh')
  else
    call('HDEL', key, 'ro', 'rh')
  end
  call('SADD', prefix .. 'post:' .. row[5], id)
  hint.wishes = true
  return 1
end

local answers = {}
for at = first, #ARGV, STRIDE do
  answers[#answers + 1] = keep(at)
end
return finish(answers)
