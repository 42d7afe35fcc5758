"""What an error of Redis means, by the line that comes over the wire."""

from __future__ import annotations

import socket
import threading

import pytest
import redis

from albireo.store.connection import connect
from albireo.store.redis_errors import Trouble, describe, trouble

# As they stand on the wire: redis/src/server.c (createSharedObjects), cluster.c, script_lua.c.
OOM = "OOM command not allowed when used memory > 'maxmemory'."


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("LOADING Redis is loading the dataset in memory", Trouble.PASSING),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Trouble.PASSING),
        ("CLUSTERDOWN The cluster is down", Trouble.PASSING),
        ("UNBLOCKED force unblock from blocking operation, instance state changed", Trouble.PASSING),
        ("ERR max number of clients reached", Trouble.PASSING),
        ("MISCONF Errors writing to the AOF file: No space left on device", Trouble.PASSING),
        (OOM, Trouble.FULL),
        (f"ERR Error running script (call to f_ab): @user_script:2: @user_script: 2: -{OOM}", Trouble.FULL),
        (f"{OOM} script: ab, on @user_script:2.", Trouble.FULL),
        ("ERR unknown command 'FOO'", Trouble.LASTING),
        ("NOPERM this user has no permissions to run the 'xadd' command", Trouble.LASTING),
        ("MOVED 15627 127.0.0.1:6379", Trouble.LASTING),
        ("WRONGPASS invalid username-password pair or user is disabled.", Trouble.LASTING),
        (
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
            Trouble.REFUSED_ID,
        ),
    ],
)
@pytest.mark.parametrize("piped", [False, True])
def test_errors_are_told_apart_as_they_come_over_the_wire(line: str, kind: Trouble, piped: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = connect(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        answers = threading.Thread(target=answer_with, args=(listener, line))
        answers.start()
        pipe = client.pipeline(transaction=False)
        pipe.get("FOO")
        with pytest.raises(redis.RedisError) as raised:
            _ = pipe.execute() if piped else client.get("FOO")
        client.close()
        answers.join(5)
    assert trouble(raised.value) is kind
    code = line.split()[0] if not line.startswith("ERR") else ""
    assert describe(raised.value).startswith(f"Redis: {code}")
    assert "\n" not in describe(raised.value)


def answer_with(listener: socket.socket, line: str) -> None:
    """Takes one connection: what sets it up is fine, the command gets the error."""
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as reader:
        while header := reader.readline():
            words = [reader.read(int(reader.readline()[1:]) + 2) for _ in range(int(header[1:]))]
            connection.sendall(b"-" + line.encode() + b"\r\n" if words[0] == b"GET\r\n" else b"+OK\r\n")
