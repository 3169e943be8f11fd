"""The ``AGENT_SESSIONS_*`` settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from cache_layer.app_settings import AppSettings


class Settings(AppSettings, prefix="AGENT_SESSIONS_"):
    """The names, types and defaults of the settings of agent_sessions."""

    #: Messages in a session above which a warning is logged. None: never.
    MAX_MESSAGES: int | None = 100
    #: Hours without a new message after which a session expires. None: never.
    EXPIRY_HOURS: float | None = 24
    #: Days after which finished sessions may be purged. None: they are kept.
    RETENTION_DAYS: float | None = None
    #: Largest message accepted, in bytes of its JSON form.
    MAX_MESSAGE_BYTES: int = 8 * 1024 * 1024
    #: Message roles accepted beside the ones of ``MessageRole``.
    EXTRA_ROLES: Sequence[str] = ()
    #: Dotted name of a function that gets a message as a dict and returns its tokens, for
    #: ``get_messages(max_tokens=…)``. None: an estimate.
    TOKEN_COUNTER: str | None = None
    #: Largest page that may be asked for by number.
    MAX_PAGE_SIZE: int = 100
    #: Rows changed in one transaction by cleanup, purge, bulk changes and erasure.
    CLEANUP_BATCH_SIZE: int = 500
    #: Largest body of a REST request. JSON escapes make it larger than its content.
    MAX_REQUEST_BYTES: int = 32 * 1024 * 1024
    #: Most strings, containers and values in the JSON of a REST request; each takes memory.
    MAX_REQUEST_ITEMS: int = 250_000
    #: Largest context, and largest metadata, of a session, in bytes of JSON.
    MAX_OBJECT_BYTES: int = 256 * 1024
    #: Event streams that one user may hold open in one process.
    MAX_STREAMS_PER_USER: int = 20
    #: REST exports that one user may download at once from one process.
    MAX_EXPORTS_PER_USER: int = 2
    #: REST exports that one process sends at once under WSGI, where each holds a thread until its
    #: client has read it. Less than the threads of a process.
    MAX_WSGI_EXPORTS: int = 3
    #: Event streams and REST exports of one process.
    MAX_STREAMS: int = 1000
    #: REST requests that change nothing, by one user, such as "600/min". None: no limit.
    READ_RATE: str | None = "6000/min"
    #: REST requests that change something, by one user, such as "120/min". None: no limit.
    WRITE_RATE: str | None = "3000/min"
    #: Wrong credentials in REST requests, by one address, such as "60/min". None: no limit.
    LOGIN_RATE: str | None = "60/min"
    #: Dotted names of DRF permissions that apply beside the API's own. None: those of the
    #: project's DEFAULT_PERMISSION_CLASSES.
    PERMISSION_CLASSES: Sequence[str] | None = None
    #: Dotted names of DRF throttles that apply beside the API's own. None: those of the
    #: project's DEFAULT_THROTTLE_CLASSES.
    THROTTLE_CLASSES: Sequence[str] | None = None
    #: Dotted name of a function that gets the request of a REST view and returns the tenant in
    #: which the view works. None: the sessions without a tenant.
    API_TENANT: str | None = None
    #: Dotted name of a class of ``agent_sessions.ciphers``, or of one's own, with encrypt() and
    #: decrypt(): texts of conversations are encrypted in the database. None: they are not.
    CIPHER: str | None = None
    #: Keys of AESGCMCipher by id: 16, 24 or 32 bytes in Base64. The first one encrypts.
    CIPHER_KEYS: Mapping[str, str] = MappingProxyType({})
    #: Whether the cipher encrypts what is written. False: it only decrypts, and
    #: ``reencrypt_conversations`` writes the rows again as plain texts.
    ENCRYPT: bool = True
    #: Seconds between two polls of the database for messages that other processes appended.
    EVENTS_POLL_SECONDS: float = 0.25
    #: Seconds of silence after which an event stream sends a keep-alive comment.
    EVENTS_KEEP_ALIVE_SECONDS: float = 15.0
    #: Seconds after which an event stream ends. The client connects again with its last id, and its
    #: rights are checked again.
    EVENTS_MAX_SECONDS: float = 300.0


settings: Final = Settings()
