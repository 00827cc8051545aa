-- Applies what operators wish.
--
-- ARGV from 7: two for each command: id; start, cancel, requeue, export or delete
-- Answers for each command: 'aN' applied, now in state N; 'r' removed; 'yN' applied before;
--   'iN' impossible in state N; 'tN' too late; 'm' there is no such task

-- What a requeue forgets; run, execution and the history stay.
local FORGOTTEN = { 'c', 'u', 'ow', 'cl', 'a', 'i', 'l', 'sa', 'fa', 'h', 'pg', 'out', 'ri', 'rr', 'gk', 'f', 'fk' }
local FIELDS = { unpack(PLACE) }
for _, field in ipairs({ 'g', 'gk', 'fk' }) do
  FIELDS[#FIELDS + 1] = field
end

local function start(t)
  if t.s == '1' then
    return 'y1'
  elseif t.s ~= '0' then
    return 'i' .. t.s
  end
  save(t, '1', { ra = tonumber(t.ra) > now and t.ra or now_text }, {})
end

local function cancel(t)
  if t.s == '0' or t.s == '1' then
    finished(t, '6', { f = CANCELLED_EARLY, fk = 'cancelled' }, {})
  elseif t.s == '6' or t.s == '2' and t.c then
    return 'y' .. t.s
  elseif t.s == '2' then
    call('HSET', key_of(t.id), 'c', '1')
    call('SADD', prefix .. 'wish:' .. t.ow, t.id)
    hint.wishes = true
  else
    return 't' .. t.s
  end
end

local function is_over(t)
  return t.s == '4' or t.s == '5' or t.s == '6'
end

local function requeue(t)
  if not is_over(t) then
    return 'i' .. t.s
  end
  discard(t.gk)
  save(t, '1', { ra = now_text, g = int(tonumber(t.g or 0) + 1) }, { unpack(FORGOTTEN) })
end

local function export(t)
  if t.s ~= '5' or t.fk ~= 'export' then
    return 'i' .. t.s
  end
  save(t, '3', {}, { 'fa', 'ow', 'cl' })
  -- Any replica may adopt the export.
  hint.work = true
end

local function delete(t)
  if t.s ~= '0' and not is_over(t) then
    return 'i' .. t.s
  end
  discard(t.gk)
  remove(t)
  return 'r'
end

local COMMANDS = { start = start, cancel = cancel, requeue = requeue, export = export, delete = delete }

local answers = {}
for at = first, #ARGV, 2 do
  local t = load(ARGV[at], FIELDS)
  answers[#answers + 1] = not t and 'm' or COMMANDS[ARGV[at + 1]](t) or 'a' .. t.s
end
return finish(answers)
