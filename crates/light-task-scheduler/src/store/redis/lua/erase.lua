-- Removes everything of the namespace, a part at a time.
--
-- Answers 1 if it is to be called again, 0 when nothing is left

local function drop(key)
  call('UNLINK', prefix .. key)
end

local page = call('ZRANGE', prefix .. 'pages', 0, 0)[1]
if page then
  for _, id in ipairs(call('LRANGE', prefix .. 'page:' .. page, 0, -1)) do
    drop('d:' .. id)
  end
  drop('page:' .. page)
  call('ZREM', prefix .. 'pages', page)
  return 1
end
for _, queue in ipairs(call('SMEMBERS', prefix .. 'queues')) do
  drop('queue:' .. queue)
  drop('count:' .. queue)
end
for _, lane in ipairs(call('SMEMBERS', prefix .. 'lanes')) do
  drop('due:' .. lane)
  drop('ready:' .. lane)
  drop('sched:' .. lane)
end
for _, replica in ipairs(call('SMEMBERS', prefix .. 'reps')) do
  for _, key in ipairs({ 'rep:', 'owner:', 'wish:', 'post:' }) do
    drop(key .. replica)
  end
end
for state = 0, 6 do
  drop('state:' .. state)
  drop('done:' .. state)
end
for _, key in ipairs({ 'owner:', 'wish:', 'rec', 'run', 'succeeded', 'spec', 'res', 'alive', 'gone', 'handles', 'deadlines', 'lanes',
  'owners', 'queues', 'live', 'reps', 'tombs', 'tomb', 'garbage', 'meta' }) do
  drop(key)
end
return 0
