#!lua
-- Appends to a log if it has the length that the caller thinks.
--
-- KEYS[1] the log, a string; KEYS[2] the set of the task's logs
-- ARGV    the expected length, bytes
-- Answers { 1 if appended or 0, the length }

local length = redis.call('STRLEN', KEYS[1])
if length ~= tonumber(ARGV[1]) then
  return { 0, length }
end
redis.call('SADD', KEYS[2], KEYS[1])
return { 1, redis.call('APPEND', KEYS[1], ARGV[2]) }
