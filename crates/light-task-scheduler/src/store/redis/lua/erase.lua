-- Removes everything of the namespace, a part at a time.
--
-- Answers 1 if it is to be called again, 0 when nothing is left

-- How many tasks one call removes.
local PART = 1000

local function drop(key)
  call('UNLINK', prefix .. key)
end

local ids = call('ZRANGE', prefix .. 'all', 0, PART - 1)
if #ids > 0 then
  for _, id in ipairs(ids) do
    drop('d:' .. id)
  end
  send('ZREM', prefix .. 'all', ids)
  return 1
end
for _, queue in ipairs(call('SMEMBERS', prefix .. 'queues')) do
  drop('queue:' .. queue)
  drop('count:' .. queue)
  drop('running:' .. queue)
end
for _, lane in ipairs(call('SMEMBERS', prefix .. 'lanes')) do
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
for _, key in ipairs({ 'owner:', 'wish:', 'rec', 'spec', 'res', 'handles', 'deadlines', 'lanes', 'owners', 'queues', 'live', 'reps', 'tombs', 'tomb',
  'garbage', 'meta' }) do
  drop(key)
end
return 0
