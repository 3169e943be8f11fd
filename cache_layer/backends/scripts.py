"""The Lua scripts of the operations, and the marker that all of them treat as a missing key.

A *lease marker* stands at a key while a reader computes its value. It begins with ``MARKER``,
which no serializer's output and no integer begins with.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

MARKER: Final = b"\x00L"

_LIVE = """
local function live(key)
  local head = redis.call('GETRANGE', key, 0, 1)
  return head ~= '' and head ~= '\\000L'
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
        self.body = _LIVE + body
        self.sha = hashlib.sha1(self.body.encode(), usedforsecurity=False).hexdigest()
        self.known[self.sha] = self

    def __call__(self, keys: list[bytes], *arguments: Any) -> tuple[Any, ...]:
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
SWAP = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
put(KEYS[1], ARGV[2], ARGV[3])
return 1
""")

#: expected -> 1 when the key held what was expected and is gone now.
DROP_IF = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
""")

#: Any number of keys -> how many of them held a value. A key of a foreign type counts.
DROP = Script("""
local dropped = 0
for _, key in ipairs(KEYS) do
  local head = redis.pcall('GETRANGE', key, 0, 1)
  redis.call('UNLINK', key)
  if head ~= '' and head ~= '\\000L' then dropped = dropped + 1 end
end
return dropped
""")

#: Any number of keys -> those that hold a value.
LIVING = Script("""
local living = {}
for _, key in ipairs(KEYS) do
  local head = redis.pcall('GETRANGE', key, 0, 1)
  if type(head) == 'string' and head ~= '' and head ~= '\\000L' then
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

#: px or "" for ever -> 1 when the key holds a value.
EXPIRE = Script("""
if not live(KEYS[1]) then return 0 end
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
