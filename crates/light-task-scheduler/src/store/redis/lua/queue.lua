-- Creates a queue or replaces its settings; what its rate limit has counted stays.
--
-- ARGV from 5: queue, settings (JSON), limit or '', interval and window of the rate (microseconds) or '', 1 if
--   paused or 0
-- Answers 1

local queue = ARGV[first]
local key = prefix .. 'queue:' .. queue
call('SADD', prefix .. 'queues', queue)
call('HSET', key, 'json', ARGV[first + 1], 'paused', ARGV[first + 5])
for at, field in ipairs({ 'limit', 'interval', 'window' }) do
  local value = ARGV[first + 1 + at]
  if value == '' then
    call('HDEL', key, field)
  else
    call('HSET', key, field, value)
  end
end
hint.work = true
return finish(1)
