"""Request and reply as bytes, between an executable and the engine.

No I/O and no imports, because the executables load this module at every start.

A message is ``CNI6``, the length of the rest, then its fields, each with its length. A length is 4 bytes, big-endian.

Request: version of cni-v6 (empty if the caller is not written in Python and accepts any engine), inode of the caller's
network namespace, plugin, environment (``KEY=value`` joined by zero bytes), stdin. The container's namespace, if it
could be opened, is passed beside it as a descriptor (SCM_RIGHTS).
Reply: ``DONE`` or ``HANDLE_LOCALLY``, exit status, stdout, stderr. The caller confirms it with ``ACK``.
"""

MAGIC = b"CNI6"
HEADER = len(MAGIC) + 4
LIMIT = 32 << 20  # bytes of one message: far more than a GC of 10,000 attachments and its environment
# The largest stdin in bytes; a longer one is refused. Commands after an ADD carry its result (prevResult). Other
# plugins of the list and the runtime's JSON can make it longer than the configuration. A GC names every attachment of
# the node, about 100 bytes each.
STDIN_BYTES = 1 << 20
STDIN_BYTES_AFTER_ADD = 16 << 20
AFTER_ADD = (b"DEL", b"CHECK", b"GC")
DONE = b"done"  # the reply is the answer
HANDLE_LOCALLY = b"yourself"  # the engine has done nothing: the caller handles the request in its own process
ACK = b"\x06"  # ASCII ACK

# Time limits in seconds, in one place to show the sums. Each limit is longer than the limits of the work it waits for.
# So the engine ends a call before its caller gives up, and the caller reports the reason before kubelet gives up.
# kubelet waits two minutes for a sandbox to stop and four for it to start.
DELEGATE_SECONDS = 60  # for a plugin that a call runs; the reference dhcp asks its server for about as long
WORK_SECONDS = DELEGATE_SECONDS + 10  # from the arrival of a request; after that its call starts no further step
UNDO_SECONDS = 20  # to undo a call that failed or whose caller is gone
GONE_SECONDS = 2  # for a plugin to end by itself after its caller is gone
CALL_SECONDS = WORK_SECONDS + UNDO_SECONDS  # a call has ended by then, unless the kernel does not answer
ANSWER_SECONDS = CALL_SECONDS + 10  # for the answer, after the request is sent
ASK_SECONDS = 5  # for a connection, for each part of a request, and for each further part of an answer
STOP_SECONDS = ANSWER_SECONDS  # for an engine to stop: it answers the requests that it has accepted


def stdin_bytes(command: bytes) -> int:
    """The largest stdin of a command, in bytes."""
    return STDIN_BYTES_AFTER_ADD if command in AFTER_ADD else STDIN_BYTES


def pack(*fields: bytes) -> bytes:
    """A message with these fields."""
    body = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return MAGIC + len(body).to_bytes(4, "big") + body


def body_length(header: bytes) -> int:
    """Number of bytes after the first ``HEADER`` bytes of a message.

    :raises ValueError: the header is not a message's, or the length exceeds ``LIMIT``.
    """
    length = int.from_bytes(header[len(MAGIC) : HEADER], "big")
    if len(header) < HEADER or header[: len(MAGIC)] != MAGIC or length > LIMIT:
        raise ValueError("not a message")
    return length


def unpack(body: bytes, count: int) -> list[bytes]:
    """The ``count`` fields of a message's body.

    :raises ValueError: the lengths do not match the body, or there are more or fewer fields.
    """
    fields: list[bytes] = []
    offset = 0
    while offset < len(body):
        start = offset + 4
        offset = start + int.from_bytes(body[offset:start], "big")
        if start > len(body) or offset > len(body):
            raise ValueError("a field goes beyond its message")
        fields.append(body[start:offset])
    if len(fields) != count:
        raise ValueError(f"{len(fields)} fields, not {count}")
    return fields


def unpack_reply(body: bytes) -> tuple[bytes, int, bytes, bytes]:
    """``DONE`` or ``HANDLE_LOCALLY``, exit status, stdout and stderr of a reply's body.

    :raises ValueError: the body is not a reply's.
    """
    word, status, stdout, stderr = unpack(body, 4)
    if word not in (DONE, HANDLE_LOCALLY) or not status.isdigit() or len(status) > 3 or int(status) > 255:
        raise ValueError("not a reply")
    return word, int(status), stdout, stderr


def pack_environment(variables: dict[bytes, bytes]) -> bytes:
    """An environment as one field. Neither keys nor values can contain a zero byte (environ(7))."""
    return b"\0".join(key + b"=" + value for key, value in variables.items())


def unpack_environment(field: bytes) -> dict[bytes, bytes]:
    """The environment in a field of ``pack_environment``."""
    pairs = (entry.partition(b"=") for entry in field.split(b"\0") if entry)
    return {key: value for key, _, value in pairs}
