"""The Lua scripts that lease, store and renew values under tags."""

from __future__ import annotations

from cache_layer.backends.operations.lua import Script

#: The key and its tags; 16 random bytes, px of the lease, px of the tags, the nonce of a value
#: that nobody can read, and a token for each tag that has none -> the bytes of the value, or of
#: the lease (the marker, random bytes, the tags' tokens).
CLAIM = Script("""
local current = {}
local section = {}
for i = 2, #KEYS do
  local tag = redis.pcall('GET', KEYS[i])
  if type(tag) ~= 'string' or #tag ~= 18 or string.sub(tag, 1, 2) ~= '\\000L' then
    tag = ARGV[i + 3]
    redis.call('SET', KEYS[i], tag, 'PX', ARGV[3])
  else
    cover(KEYS[i], ARGV[3])
  end
  current[#current + 1] = tag
  section[#section + 1] = struct.pack('>I2', #KEYS[i]) .. KEYS[i] .. tag
end
current = table.concat(current)
section = table.concat(section)
section = struct.pack('>I4', #section) .. section
local data = redis.call('GET', KEYS[1])
if data then
  local magic = string.sub(data, 1, 2)
  if magic == '\\000L' and string.sub(data, 19) == current then return data end
  if magic == '\\000E' and string.sub(data, 45, 44 + #section) == section
      and string.sub(data, 3, 18) ~= ARGV[4] then
    return data
  end
end
local marker = '\\000L' .. ARGV[1] .. current
redis.call('SET', KEYS[1], marker, 'PX', ARGV[2])
return marker
""")

#: The key and its tags; the bytes of the lease, the envelope, px -> 1 when stored.
FILL = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  if token(KEYS[i]) ~= string.sub(ARGV[1], 18 * i - 17, 18 * i) then return 0 end
  cover(KEYS[i], ARGV[3])
end
put(KEYS[1], ARGV[2], ARGV[3])
return 1
""")

#: The key; magic and nonce of an envelope, how long to keep others from renewing it, and
#: "again" or "" -> 1 when it is for the caller to renew, or to put off.
POSTPONE = Script("""
local head = redis.call('GETRANGE', KEYS[1], 0, 47)
if string.sub(head, 1, 18) ~= ARGV[1] or not alive(KEYS[1], head) then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] ~= 'again' and (tonumber(string.sub(head, 32, 44)) or 0) > now then return 0 end
local free = math.min(now + ARGV[2], 9999999999999)
redis.call('SETRANGE', KEYS[1], 31, string.format('%013.0f', free))
return 1
""")

#: The key; magic and nonce of an envelope, another one with the same tags, px -> 1 when stored.
RENEW = Script("""
local head = redis.call('GETRANGE', KEYS[1], 0, 47)
if string.sub(head, 1, 18) ~= ARGV[1] or not alive(KEYS[1], head) then return 0 end
for _, tag in ipairs(tags_of(KEYS[1], head)) do cover(tag[1], ARGV[3]) end
put(KEYS[1], ARGV[2], ARGV[3])
return 1
""")

#: The key; magic and nonce of an envelope, or what a lease begins with -> 1 when it was there and
#: is gone now.
FORGET = Script("""
if redis.call('GETRANGE', KEYS[1], 0, 17) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
""")
