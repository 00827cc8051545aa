-- Reads tasks by id.
--
-- ARGV from 5: ids
-- Answers for each: { id, field, value, … }, or nothing but the id if there is no such task

local tasks = {}
for at = first, #ARGV do
  local flat = call('HGETALL', key_of(ARGV[at]))
  table.insert(flat, 1, ARGV[at])
  tasks[#tasks + 1] = flat
end
return tasks
