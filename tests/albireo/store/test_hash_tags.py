"""A Redis in cluster mode refuses a command or a script whose keys lie in different slots: none of ours does.

Our clients follow no redirection, so one node has all slots here (docs/scale.md).
"""

from __future__ import annotations

from pathlib import Path

import redis

from albireo.local.ports import free_port
from tests.albireo.store.every_operation import KEYS, run_every_operation
from tests.deploy.redis_users import redis_server
from tests.stack import wait_for

SLOTS = 16_384


def test_every_operation_stays_in_one_slot(tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    url = f"redis://127.0.0.1:{port}"
    with (
        redis.Redis.from_url(url) as node,
        redis_server(port, tmp_path, node.ping, cluster_enabled="yes"),
    ):
        node.execute_command("CLUSTER ADDSLOTS", *range(SLOTS))
        wait_for(lambda: node.execute_command("CLUSTER INFO")["cluster_state"] == "ok", 10, "no cluster")
        run_every_operation(lambda tier: url)
        slots = {
            node.execute_command("CLUSTER KEYSLOT", key) for key in (KEYS.inbox, KEYS.plans("w"), KEYS.epoch)
        }
        assert len(slots) == 1
