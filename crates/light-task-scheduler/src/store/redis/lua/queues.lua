-- Reads every queue that has settings or has ever had a task.
--
-- Answers queue, settings (JSON) or '', queue, …

local answers = {}
for _, queue in ipairs(call('SMEMBERS', prefix .. 'queues')) do
  answers[#answers + 1] = queue
  answers[#answers + 1] = call('HGET', prefix .. 'queue:' .. queue, 'json') or ''
end
return answers
