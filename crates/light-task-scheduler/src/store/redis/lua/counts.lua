-- Counts the tasks of every queue.
--
-- Answers for each queue that has counted any: { queue, how many in the states 0 to 6, how many are not due }

local later = {}
for _, lane in ipairs(call('SMEMBERS', prefix .. 'lanes')) do
  local queue = sub(lane, 1, string.find(lane, '\n', 1, true) - 1)
  local waits = call('ZCOUNT', prefix .. 'sched:' .. lane, '(' .. now_text, '+inf')
  later[queue] = (later[queue] or 0) + waits
end
local answers = {}
for _, queue in ipairs(call('SMEMBERS', prefix .. 'queues')) do
  local row = call('HMGET', prefix .. 'count:' .. queue, '0', '1', '2', '3', '4', '5', '6')
  local answer, any = { queue }, false
  for at = 1, 7 do
    answer[at + 1] = row[at] or '0'
    any = any or row[at]
  end
  answer[9] = int(later[queue] or 0)
  if any then
    answers[#answers + 1] = answer
  end
end
return answers
