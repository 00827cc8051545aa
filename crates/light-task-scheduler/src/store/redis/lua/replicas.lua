-- Reads the replicas that are alive, and the dead ones that still own tasks.
--
-- Answers { id, name, beat, 1 if expired or 0, 1 if dead or 0, expires_at, how many tasks it owns, home or '', 1 if it
--   is to take nothing more or 0 } for each

local found, seen = {}, {}

local function look(id)
  if id == '' or seen[id] then
    return
  end
  seen[id] = true
  local row = call('HMGET', prefix .. 'rep:' .. id, 'name', 'beat', 'exp', 'ttl', 'dead', 'home', 'drain')
  local owned = call('SCARD', prefix .. 'owner:' .. id)
  if row[1] and (row[5] == '0' or owned > 0) then
    found[#found + 1] = { id, row[1], row[2], is_expired(row[3], row[4]) and 1 or 0, row[5], row[3], owned,
      row[6] or '', row[7] == '1' and 1 or 0 }
  end
end

for _, set in ipairs({ 'live', 'owners' }) do
  for _, id in ipairs(call('SMEMBERS', prefix .. set)) do
    look(id)
  end
end
table.sort(found, function(a, b) return a[1] < b[1] end)
return found
