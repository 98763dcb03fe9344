"""Request and reply as bytes, between an executable and the engine. No I/O, no imports: the executables pay for them.

A message is ``CNI6``, the length of what follows, then its fields, each with its length. A length is 4 bytes,
big-endian.

Request: version of cni-v6 (empty: the caller has no Python of its own, and takes any engine), inode of the caller's
network namespace, plugin, environment (``KEY=value`` joined by zero bytes), stdin; the container's namespace, where it
could be opened, travels beside it as a descriptor (SCM_RIGHTS).
Reply: what to do with it (``DONE`` or ``HANDLE_LOCALLY``), exit status, stdout, stderr. The caller confirms it with
``ACK``.
"""

MAGIC = b"CNI6"
HEADER = len(MAGIC) + 4
LIMIT = 32 << 20  # bytes of one message: a GC of 10,000 attachments and an environment fit well below
# Bytes of stdin that are read: what goes beyond is refused then, whatever is still to come. Commands that follow an ADD
# bring its result along (prevResult), which other plugins of the list and the runtime's JSON can have made longer than
# its configuration; a GC names every attachment of the node, some 100 bytes each.
STDIN_BYTES = 1 << 20
STDIN_BYTES_AFTER_ADD = 16 << 20
AFTER_ADD = (b"DEL", b"CHECK", b"GC")
DONE = b"done"  # the reply is the answer
HANDLE_LOCALLY = b"yourself"  # nothing was done: the caller handles the request in its own process
ACK = b"\x06"  # ASCII ACK

# How long each side waits, in seconds; here, so that the sum can be seen. Each limit is longer than those of what is
# waited for: the engine ends a call in time for its caller to hear of it, and the caller says why before kubelet, which
# waits two minutes for a sandbox's end and four for its start, can only say that there was no answer.
DELEGATE_SECONDS = 60  # for a plugin that a call runs; the reference dhcp asks its server for about as long
WORK_SECONDS = DELEGATE_SECONDS + 10  # after that a call begins nothing more; from the moment its request is there
UNDO_SECONDS = 20  # for taking back what a call did that failed, or whose caller has gone
GONE_SECONDS = 2  # for a plugin whose call's caller has gone: to end by itself is better than to be ended
CALL_SECONDS = WORK_SECONDS + UNDO_SECONDS  # an engine's call has ended then, but for what the kernel never answers
ANSWER_SECONDS = CALL_SECONDS + 10  # for the answer, once the request is sent
ASK_SECONDS = 5  # for a connection, for each part of a request, and of an answer that has begun
STOP_SECONDS = ANSWER_SECONDS  # for an engine's end: it answers what it has accepted


def stdin_bytes(command: bytes) -> int:
    """How long a command's stdin may be."""
    return STDIN_BYTES_AFTER_ADD if command in AFTER_ADD else STDIN_BYTES


def pack(*fields: bytes) -> bytes:
    """One message of these fields."""
    body = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return MAGIC + len(body).to_bytes(4, "big") + body


def body_length(header: bytes) -> int:
    """How many bytes follow a message's first ``HEADER`` bytes.

    :raises ValueError: for anything that is no message, or one beyond ``LIMIT``.
    """
    length = int.from_bytes(header[len(MAGIC) : HEADER], "big")
    if len(header) < HEADER or header[: len(MAGIC)] != MAGIC or length > LIMIT:
        raise ValueError("not a message")
    return length


def unpack(body: bytes, count: int) -> list[bytes]:
    """The ``count`` fields of a message's body.

    :raises ValueError: where the lengths do not add up, or there are more or fewer fields.
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
    """What to do, exit status, stdout and stderr of a reply's body.

    :raises ValueError: for anything that is no reply.
    """
    word, status, stdout, stderr = unpack(body, 4)
    if word not in (DONE, HANDLE_LOCALLY) or not status.isdigit() or len(status) > 3 or int(status) > 255:
        raise ValueError("not a reply")
    return word, int(status), stdout, stderr


def pack_environment(variables: dict[bytes, bytes]) -> bytes:
    """An environment as one field; neither keys nor values can hold a zero byte (environ(7))."""
    return b"\0".join(key + b"=" + value for key, value in variables.items())


def unpack_environment(field: bytes) -> dict[bytes, bytes]:
    """The environment of ``pack_environment``."""
    pairs = (entry.partition(b"=") for entry in field.split(b"\0") if entry)
    return {key: value for key, _, value in pairs}
