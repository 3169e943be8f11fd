"""The Lua scripts of the operations.

Each script treats a key as missing if it holds a lease, a tag's token, or an envelope whose tags
have changed (see ``encoding``). A hash, a list, a set or a stream counts as a value. A command that
the user of Redis may not use is replaced by another one of the same effect, where there is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from cache_layer.backends.operations.base import Command

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
local function is_structure(reply)
  return string.find(reply.err, 'WRONGTYPE', 1, true) ~= nil
end
local function head_of(key)
  local head = redis.pcall('GETRANGE', key, 0, 47)
  if type(head) == 'string' then return head end
  if is_structure(head) then return 'a data structure' end
  -- Fail as a command fails.
  return redis.call('GETRANGE', key, 0, 47)
end
local function live(key)
  return alive(key, head_of(key))
end
local function refused(reply)
  return type(reply) == 'table' and reply.err
end
local function expire(key, px)
  if px == '' then
    if refused(redis.pcall('PERSIST', key)) then redis.call('GETEX', key, 'PERSIST') end
  elseif refused(redis.pcall('PEXPIRE', key, px)) then
    redis.call('GETEX', key, 'PX', px)
  end
end
local function cover(tag, px)
  local left = redis.pcall('PTTL', tag)
  -- If nobody may ask, the tag may end before other results that name it: they are missing then.
  if refused(left) then left = 0 end
  if left < 0 then return end
  if px == '' then
    expire(tag, '')
  elseif left < tonumber(px) + 1000 then
    expire(tag, string.format('%.0f', tonumber(px) + 60000))
  end
end
local function unlink(key)
  local reply = redis.pcall('UNLINK', key)
  if refused(reply) then reply = redis.pcall('DEL', key) end
  if refused(reply) then return redis.call('GETDEL', key) and 1 or 0 end
  return reply
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


#: Makes a command of the keys and the arguments of a script.
Plain = Callable[[tuple[Any, ...], tuple[Any, ...]], Command]


def plain_set(condition: str) -> Plain:
    """Return the function for scripts that store a value on a condition."""

    def plain(keys: tuple[Any, ...], arguments: tuple[Any, ...]) -> Command:
        data, milliseconds = arguments
        expiry = () if milliseconds == "" else ("PX", milliseconds)
        return ("SET", *keys, data, *expiry, condition)

    return plain


def plain_expire(keys: tuple[Any, ...], arguments: tuple[Any, ...]) -> Command:
    """Return the command that changes the expiry of a key."""
    (milliseconds,) = arguments
    # PERSIST does not tell a key that never expires from a missing one.
    return ("GETEX", *keys, "PERSIST") if milliseconds == "" else ("PEXPIRE", *keys, milliseconds)


def plain(name: str) -> Plain:
    """Return the function for scripts that a command with the same keys replaces."""
    return lambda keys, _arguments: (name, *keys)


class Script:
    """A Lua script, called by its digest and sent in full if the server does not know it."""

    __slots__ = ("body", "plain", "sha")

    #: Every script by its digest and by its body.
    known: Final[dict[str, Script]] = {}

    def __init__(self, body: str, *, plain: Plain | None = None) -> None:
        self.body = _COMMON + body
        self.sha = hashlib.sha1(self.body.encode(), usedforsecurity=False).hexdigest()
        #: Returns a command of Redis with the same effect, if the user may not run scripts. It
        #: counts leases, and results whose tags have changed, as values.
        self.plain = plain
        self.known[self.sha] = self.known[self.body] = self

    def __call__(self, keys: Sequence[bytes], *arguments: object) -> Command:
        """Return the command that calls the script."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    @classmethod
    def otherwise(cls, command: Command) -> Command | None:
        """Return another command with the same effect, for one that Redis refuses, or None."""
        if command[0] == "EVALSHA":
            return ("EVAL", cls.known[command[1]].body, *command[2:])
        if command[0] == "EVAL" and (plain := cls.known[command[1]].plain):
            first = 3 + command[2]
            return plain(command[3:first], command[first:])
        return None


#: data, px -> 1 when stored.
ADD = Script(
    """
if live(KEYS[1]) then return 0 end
put(KEYS[1], ARGV[1], ARGV[2])
return 1
""",
    plain=plain_set("NX"),
)

#: expected, data, px or "keep" -> 1 when the key held the expected bytes and now holds data. A key
#: of a foreign type never does.
SWAP = Script("""
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
put(KEYS[1], ARGV[2], ARGV[3])
return 1
""")

#: Any number of keys -> how many of them held a value. A key of a foreign type counts.
DELETE = Script(
    """
local deleted = 0
for _, key in ipairs(KEYS) do
  local head = redis.pcall('GETRANGE', key, 0, 47)
  if type(head) ~= 'string' or alive(key, head) then deleted = deleted + 1 end
  unlink(key)
end
return deleted
""",
    plain=plain("DEL"),
)

#: Any number of keys, deleted without a look at what they hold -> nothing of use.
DROP = Script(
    """
local reply = redis.pcall('UNLINK', unpack(KEYS))
if refused(reply) then
  for _, key in ipairs(KEYS) do unlink(key) end
end
return #KEYS
""",
    plain=plain("DEL"),
)

#: Any number of keys, of which data structures are left.
DELETE_VALUES = Script(
    """
for _, key in ipairs(KEYS) do
  if type(redis.pcall('GETRANGE', key, 0, 0)) == 'string' then unlink(key) end
end
return 1
""",
    plain=plain("DEL"),
)

#: Any number of keys -> for each, something if it holds a value, else nil.
LIVING = Script(
    """
local living = {}
for at, key in ipairs(KEYS) do
  local head = redis.pcall('GETRANGE', key, 0, 47)
  if type(head) == 'string' then
    living[at] = alive(key, head) and 1
  else
    living[at] = is_structure(head) and 1
  end
end
return living
""",
    plain=plain("MGET"),
)

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

#: -> the milliseconds left, -1 when the key never expires, -2 when it holds no value.
REMAINING = Script(
    """
if not live(KEYS[1]) then return -2 end
return redis.call('PTTL', KEYS[1])
""",
    plain=plain("PTTL"),
)

#: -> 1 when the key holds a value.
HOLDS = Script(
    """
return live(KEYS[1]) and 1 or 0
""",
    plain=plain("EXISTS"),
)

#: px or "" for ever -> 1 when the key holds a value. Its tags live as long.
EXPIRE = Script(
    """
local head = head_of(KEYS[1])
if not alive(KEYS[1], head) then return 0 end
for _, tag in ipairs(tags_of(KEYS[1], head)) do cover(tag[1], ARGV[1]) end
expire(KEYS[1], ARGV[1])
return 1
""",
    plain=plain_expire,
)

#: Two keys -> 1 when the first held a value, which the second holds now.
RENAME = Script(
    """
if not live(KEYS[1]) then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
return 1
""",
    plain=plain("RENAME"),
)

#: The key and its tags; 16 random bytes, px of the lease, px of the tags, the bytes of a value that
#: nobody can decode, and a token for each tag that has none -> the bytes of the value, or of the
#: lease (the marker, random bytes, the tags' tokens). A key without tags may hold any value.
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
if data and data ~= ARGV[4] then
  local magic = string.sub(data, 1, 2)
  if magic == '\\000L' then
    if string.sub(data, 19) == current then return data end
  elseif #KEYS == 1 then
    if alive(KEYS[1], string.sub(data, 1, 48)) then return data end
  elseif magic == '\\000E' and string.sub(data, 45, 44 + #section) == section then
    return data
  end
end
local marker = '\\000L' .. ARGV[1] .. current
redis.call('SET', KEYS[1], marker, 'PX', ARGV[2])
return marker
""")

#: The key and its tags; the bytes of the lease, those of the value, px -> 1 when stored.
FILL = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  if token(KEYS[i]) ~= string.sub(ARGV[1], 18 * i - 17, 18 * i) then return 0 end
  cover(KEYS[i], ARGV[3])
end
put(KEYS[1], ARGV[2], ARGV[3])
return 1
""")

#: The key; magic and nonce of an envelope, the milliseconds to keep others from refreshing it, and
#: "again" or "" -> 1 when the caller may refresh it, or has set another time.
CLAIM_REFRESH = Script("""
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
REFRESH = Script("""
local head = redis.call('GETRANGE', KEYS[1], 0, 47)
if string.sub(head, 1, 18) ~= ARGV[1] or not alive(KEYS[1], head) then return 0 end
for _, tag in ipairs(tags_of(KEYS[1], head)) do cover(tag[1], ARGV[3]) end
put(KEYS[1], ARGV[2], ARGV[3])
return 1
""")

#: The key; magic and nonce of an envelope, or the beginning of a lease -> 1 when the key held it
#: and is deleted now.
DELETE_IF = Script("""
if redis.call('GETRANGE', KEYS[1], 0, 17) ~= ARGV[1] then return 0 end
return unlink(KEYS[1])
""")
