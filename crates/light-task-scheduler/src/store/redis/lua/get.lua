-- Reads tasks by id.
--
-- ARGV from 5: ids
-- Answers what is told of each (see `tell`)

local ids = {}
for at = first, #ARGV do
  ids[#ids + 1] = ARGV[at]
end
return tell(ids)
