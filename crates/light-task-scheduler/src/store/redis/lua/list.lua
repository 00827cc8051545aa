-- Reads a part of a page of tasks, newest first.
--
-- ARGV from 5: insertion number below which to look ('' from the newest), most tasks, most bytes of payloads and
--   outputs, queue or '', kind or '', created from or '', created before or '', beginning of the id,
--   how many states, the states (none: any), then name and value of labels
-- Answers { insertion number to go on below, '' at the end, tasks }; a task is { id, field, value, … }

-- How many tasks one call looks at.
local LOOK_MAX = 2000

local before, most, bytes_max = ARGV[first], tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
local queue, kind = ARGV[first + 3], ARGV[first + 4]
local from, till = tonumber(ARGV[first + 5]), tonumber(ARGV[first + 6])
local id_prefix = ARGV[first + 7]
local state_count = tonumber(ARGV[first + 8])
local states, after = {}, first + 9 + state_count
for at = first + 9, after - 1 do
  states[ARGV[at]] = true
end

-- The sorted sets that hold everything that can match: waiting and succeeded tasks have none of their own.
local function sources()
  if state_count == 0 or states['1'] or states['4'] then
    return { 'all' }
  end
  local keys = {}
  for state in pairs(states) do
    if state ~= '2' then
      keys[#keys + 1] = 'state:' .. state
    elseif queue ~= '' then
      keys[#keys + 1] = 'running:' .. queue
    else
      for _, name in ipairs(call('SMEMBERS', prefix .. 'queues')) do
        keys[#keys + 1] = 'running:' .. name
      end
    end
  end
  return keys
end

local function has_labels(options)
  if after > #ARGV then
    return true
  elseif not options then
    return false
  end
  local labels = cjson.decode(options).labels
  for at = after, #ARGV, 2 do
    if labels[ARGV[at]] ~= ARGV[at + 1] then
      return false
    end
  end
  return true
end

local function matches(id)
  if string.sub(id, 1, #id_prefix) ~= id_prefix then
    return false
  end
  local row = call('HMGET', key_of(id), 's', 'q', 'k', 'ca', 'o')
  local created = tonumber(row[4])
  return (state_count == 0 or states[row[1]]) and (queue == '' or row[2] == queue) and (kind == '' or row[3] == kind)
    and (not from or created >= from) and (not till or created < till) and has_labels(row[5])
end

-- The newest of all sources, at most LOOK_MAX; whether there may be more.
local function newest()
  local found, full = {}, false
  local top = before == '' and '+inf' or '(' .. before
  for _, key in ipairs(sources()) do
    local part = call('ZREVRANGEBYSCORE', prefix .. key, top, '-inf', 'WITHSCORES', 'LIMIT', 0, LOOK_MAX)
    full = full or #part == 2 * LOOK_MAX
    for at = 1, #part, 2 do
      found[#found + 1] = { part[at], tonumber(part[at + 1]) }
    end
  end
  table.sort(found, function(a, b) return a[2] > b[2] end)
  return found, full or #found > LOOK_MAX
end

local found, more = newest()
local tasks, bytes, place = {}, 0, ''
for at, it in ipairs(found) do
  if at > LOOK_MAX or #tasks == most or bytes > bytes_max then
    more = true
    break
  end
  place = int(it[2])
  if matches(it[1]) then
    local key = key_of(it[1])
    bytes = bytes + call('HSTRLEN', key, 'p') + call('HSTRLEN', key, 'out') + call('HSTRLEN', key, 'ri')
    tasks[#tasks + 1] = call('HGETALL', key)
    table.insert(tasks[#tasks], 1, it[1])
  end
end
return { more and place or '', tasks }
