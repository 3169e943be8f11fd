"""The Lua scripts of the operations.

All of them treat as a missing key what is one: a lease, a tag's token, and the envelope of a value
whose tags have changed (see ``envelope``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

_COMMON = """
local tokens = {}
local function token(key)
  local known = tokens[key]
  if known == nil then
    known = redis.pcall('GET', key)
    tokens[key] = known
  end
  return known
end
local function tags_of(key, head)
  local tags = {}
  if #head < 48 or string.sub(head, 1, 2) ~= '\\000E' then return tags end
  local size = struct.unpack('>I4', head, 45)
  if size == 0 then return tags end
  local list = redis.call('GETRANGE', key, 48, 47 + size)
  local at = 1
  while at + 1 <= #list do
    local after = at + 2 + struct.unpack('>I2', list, at)
    tags[#tags + 1] = {string.sub(list, at + 2, after - 1), string.sub(list, after, after + 17)}
    at = after + 18
  end
  return tags
end
local function alive(key, head)
  if head == '' or string.sub(head, 1, 2) == '\\000L' then return false end
  for _, tag in ipairs(tags_of(key, head)) do
    if token(tag[1]) ~= tag[2] then return false end
  end
  return true
end
local function live(key)
  return alive(key, redis.call('GETRANGE', key, 0, 47))
end
local function cover(tag, px)
  local left = redis.call('PTTL', tag)
  if left < 0 then return end
  if px == '' then
    redis.call('PERSIST', tag)
  elseif left < tonumber(px) + 1000 then
    redis.call('PEXPIRE', tag, string.format('%.0f', tonumber(px) + 60000))
  end
end
local function put(key, data, px)
  if px == '' then
    redis.call('SET', key, data)
  elseif px == 'keep' then
    redis.call('SET', key, data, 'KEEPTTL')
  else
    redis.call('SET', key, data, 'PX', px)
  end
end
"""


class Script:
    """A Lua script that is called by its digest and sent in full where the server lacks it."""

    __slots__ = ("body", "sha")

    #: Every script by its digest.
    known: Final[dict[str, Script]] = {}

    def __init__(self, body: str) -> None:
        self.body = _COMMON + body
        self.sha = hashlib.sha1(self.body.encode(), usedforsecurity=False).hexdigest()
        self.known[self.sha] = self

    def __call__(self, keys: Sequence[bytes], *arguments: Any) -> tuple[Any, ...]:
        """Return the command that calls the script."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    @classmethod
    def in_full(cls, command: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the command that does the same on a server that does not know the script."""
        return ("EVAL", cls.known[command[1]].body, *command[2:])


#: data, px -> 1 when stored.
ADD = Script("""
if live(KEYS[1]) then return 0 end
put(KEYS[1], ARGV[1], ARGV[2])
return 1
""")

#: expected, data, px or "keep" -> 1 when the key held what was expected and now holds data.
#: A key of a foreign type does not hold it.
SWAP = Script("""
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
put(KEYS[1], ARGV[2], ARGV[3])
return 1
""")

#: Any number of keys -> how many of them held a value. A key of a foreign type counts.
DROP = Script("""
local dropped = 0
for _, key in ipairs(KEYS) do
  local head = redis.pcall('GETRANGE', key, 0, 47)
  if type(head) ~= 'string' or alive(key, head) then dropped = dropped + 1 end
  redis.call('UNLINK', key)
end
return dropped
""")

#: Any number of keys -> those that hold a value.
LIVING = Script("""
local living = {}
for _, key in ipairs(KEYS) do
  local head = redis.pcall('GETRANGE', key, 0, 47)
  if type(head) == 'string' and alive(key, head) then
    living[#living + 1] = key
  end
end
return living
""")

#: amount, data and px to create the key with ("no": do not create) -> the new number, or nil.
#: The number is read back as text: a Lua number would lose digits.
INCREMENT = Script("""
if not live(KEYS[1]) then
  if ARGV[3] == 'no' then return false end
  put(KEYS[1], ARGV[2], ARGV[3])
  return ARGV[2]
end
redis.call('INCRBY', KEYS[1], ARGV[1])
return redis.call('GET', KEYS[1])
""")

#: -> the milliseconds left, -1 for ever, -2 when the key holds no value.
REMAINING = Script("""
if not live(KEYS[1]) then return -2 end
return redis.call('PTTL', KEYS[1])
""")

#: -> 1 when the key holds a value.
HOLDS = Script("""
return live(KEYS[1]) and 1 or 0
""")

#: px or "" for ever -> 1 when the key holds a value. Its tags live as long.
EXPIRE = Script("""
local head = redis.call('GETRANGE', KEYS[1], 0, 47)
if not alive(KEYS[1], head) then return 0 end
for _, tag in ipairs(tags_of(KEYS[1], head)) do cover(tag[1], ARGV[1]) end
if ARGV[1] == '' then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 1
""")

#: Two keys -> 1 when the first held a value, which the second holds now.
RENAME = Script("""
if not live(KEYS[1]) then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
return 1
""")
