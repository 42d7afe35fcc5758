"""Applies a finished plan to the ledger.

The core calls it, where it follows another core that has made the plan.
"""

from __future__ import annotations

from albireo.contract.plan import Plan
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.request import Phase


def apply_plan(ledger: Ledger, plan: Plan) -> None:
    """Changes the state as making this plan did. Raises ProtocolError if the plan does not fit the state,
    which is undefined then."""
    for ended in plan.ended:
        ledger.end(ended)
    for slot in plan.released:
        ledger.release(slot)
    for slot in plan.paused:
        ledger.pause(slot)
    for slot in plan.resumed:
        ledger.resume(slot)
    for spill in plan.spills:
        ledger.spill(spill)
    if plan.admissions and ledger.tiers.unknown:
        raise ProtocolError(f"plan {plan.step} admits before the group has reported what its tiers hold")
    for admission in plan.admissions:
        ledger.admit(admission)
    for fetch in plan.fetches:
        ledger.fetch(fetch)
    for offload in plan.offloads:
        ledger.offload(offload)
    ledger.grant(plan.grants)
    for chunk in plan.chunks:
        ledger.schedule_chunk(chunk)
    for span in plan.spans:
        ledger.schedule_span(span)
    decoding = ledger.phases[Phase.DECODING]
    if len(decoding) != plan.num_decodes or any(o.scheduled >= o.row_limit for o in decoding.values()):
        raise ProtocolError(f"plan {plan.step} runs {plan.num_decodes} rows; {len(decoding)} slots decode")
    ledger.publish_step()
    if plan.digest is not None and plan.digest != ledger.digest():
        raise ProtocolError(f"plan {plan.step} has the digest of another slot table")
