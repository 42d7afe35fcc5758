"""Every Redis key of Albireo. The keys of one model share a hash tag, so scripts stay legal on a cluster.

| key | type | holds |
|---|---|---|
| inbox | stream | submissions and cancellations, for the scheduler |
| request | hash, expires | digest of the body, epoch; until the request ends: its gateway, its cancellation |
| waiting | counter | branches of accepted requests that have not been admitted to a slot yet |
| departed | counter | branches that have left `waiting` since the epoch opened |
| tenants | hash | by tenant: ``live:<tenant>`` branches that have not ended, ``waiting:<tenant>`` |
| tokens | string, expires | of a tenant with a quota: when all tokens of its minute are free again, ms |
| gateway | string, expires | nothing: it is there while that gateway follows the logs |
| lease | string, expires | token of the active scheduler |
| epoch | counter | the last epoch that was opened |
| notices | stream | `Notice` entries of the scheduler for gateways, ids ``<epoch>-<n>`` |
| model | string | ``ServedModel``: what is common to all groups, also while none is there |
| groups | set | incarnations of the groups that have registered and have not left |
| serving | set | incarnations of the groups that the scheduler of the current epoch leads |
| load | string, expires | the scheduler's ``Load`` |
| group | string, expires | ``GroupInfo`` of one life of a worker group |
| plans | stream | of one life of a group: one ``PlanEntry`` a step, ids ``<epoch>-<step>`` |
| results | stream | of one life of a group: one ``ResultEntry`` a step, ids ``<epoch>-<step>`` |
| rank | string, expires | ``RankBeat``: the heartbeat of one rank |
| gpu | string, expires | the ``Gpu`` that a rank computes on, one key a rank |

API keys are those of the whole deployment, whichever models it serves: one hash, with a hash tag and a prefix
of its own, so that a user of Redis can be kept from it (``deploy/redis/users.acl``).

| key | type | holds |
|---|---|---|
| API_KEYS | hash | records of API keys (``api_keys.py``) by id; a random version, new at each change |
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

API_KEYS = "albireo-auth:{api-keys}"
API_KEYS_VERSION = "version"
"""The field of that hash by which readers see whether anything has changed."""
MODELS = "albireo:{models}:names"
"""Set of the names of all models that have had a scheduler."""
TENANT_POLICIES = "albireo:{tenants}:policies"
"""Hash of the policies of all tenants, by name, for all models: ``albireo/contract/tenants.py``."""


@dataclass(frozen=True)
class Keys:
    """The keys of one model. A group is named by its incarnation."""

    model: str

    def _key(self, *parts: str) -> str:
        return ":".join((f"albireo:{{{self.model}}}", *parts))

    @cached_property
    def inbox(self) -> str:
        return self._key("inbox")

    def request(self, request_id: str) -> str:
        """``request_id``: of its record, ``<tenant>:<id>`` where the tenant is that of an API key."""
        return self._key("request", request_id)

    @cached_property
    def waiting(self) -> str:
        return self._key("waiting")

    @cached_property
    def departed(self) -> str:
        return self._key("departed")

    @cached_property
    def tenants(self) -> str:
        return self._key("tenants")

    def tokens(self, tenant: str) -> str:
        return self._key("tokens", tenant)

    def gateway(self, gateway_id: str) -> str:
        """With an empty id what the keys of all gateways begin with."""
        return self._key("gateway", gateway_id)

    @cached_property
    def lease(self) -> str:
        return self._key("lease")

    @cached_property
    def epoch(self) -> str:
        return self._key("epoch")

    @cached_property
    def notices(self) -> str:
        return self._key("notices")

    @cached_property
    def served_model(self) -> str:
        return self._key("model")

    @cached_property
    def groups(self) -> str:
        return self._key("groups")

    @cached_property
    def serving(self) -> str:
        return self._key("serving")

    @cached_property
    def load(self) -> str:
        return self._key("load")

    def group(self, incarnation: str) -> str:
        return self._key("group", incarnation)

    def plans(self, incarnation: str) -> str:
        return self._key("plans", incarnation)

    def results(self, incarnation: str) -> str:
        return self._key("results", incarnation)

    def rank(self, incarnation: str, rank: int) -> str:
        return self._key("rank", incarnation, str(rank))

    def gpu(self, incarnation: str, rank: int) -> str:
        return self._key("gpu", incarnation, str(rank))
