-- Keeps what executions push, until their owner fetches it.
--
-- ARGV from 5: six for each report: id, execution, 1 if an outcome or 0, JSON, 1 if it has an output or 0, output
-- Answers for each report: 1 taken, 0 not of the current execution of a running task

local STRIDE = 6

local function keep(at)
  local t, execution = record(ARGV[at]), ARGV[at + 1]
  if not t or t[S] ~= 2 or t[X] ~= tonumber(execution) then
    return 0
  end
  -- The first outcome of an execution is kept; anything replaces a progress, or what an earlier execution said.
  local row = call('HMGET', detail_key(t.id), 'rx', 're')
  if row[1] == execution and row[2] == '1' then
    return 1
  end
  set_details(t, 'rx', execution, 're', ARGV[at + 2], 'rs', ARGV[at + 3])
  if ARGV[at + 4] == '1' then
    set_details(t, 'ro', ARGV[at + 5])
    forget_details(t, 'rh')
  else
    forget_details(t, 'ro', 'rh')
  end
  call('SADD', prefix .. 'post:' .. t[OW], t.id)
  hint.wishes = true
  return 1
end

local answers = {}
for at = first, #ARGV, STRIDE do
  answers[#answers + 1] = keep(at)
end
return finish(answers)
