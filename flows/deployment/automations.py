"""Automations on the site's Prefect server: they end dead runs, and tell of them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from cac_core.errors import CacError

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

DEAD_RUNS, TELL = "cac: dead runs", "cac: tell of dead and late runs"
#: Four heartbeats of PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30, the shortest that Prefect allows.
SILENCE_S = 120.0
#: The tag of every deployment in prefect.yaml; other flows of the server are left alone.
_OURS: dict[str, str | list[str]] = {
    "prefect.resource.role": "tag",
    "prefect.resource.id": "prefect.tag.cac",
}


def keep_automations(client: SyncPrefectClient, block: str | None) -> list[str]:
    """Make the automations or bring them up to date, and return their names.

    Parameters
    ----------
    block : notification block of the server, TYPE/NAME, that is told of dead and late runs;
        without one the automation for this is removed.

    Raises
    ------
    CacError
        If the server has no such block.
    """
    wanted = [_dead_runs()]
    if block is not None:
        wanted.append(_tell(_block_id(client, block)))
    for automation in wanted:
        present = client.read_automations_by_name(automation.name)
        if present:
            client.update_automation(present[0].id, automation)
        else:
            client.create_automation(automation)
        for surplus in present[1:]:
            client.delete_automation(surplus.id)
    if block is None:
        for surplus in client.read_automations_by_name(TELL):
            client.delete_automation(surplus.id)
    return [automation.name for automation in wanted]


def _dead_runs() -> AutomationCore:
    """A run that was alive and gives no sign of life is dead.

    Any other event of the run counts as a sign: also its end, whose events are named after its
    states, such as OverBudget.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name=DEAD_RUNS,
        description=f"Ends a flow run without a heartbeat for {SILENCE_S:.0f} s.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_OURS,
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            threshold=1,
            within=dt.timedelta(seconds=SILENCE_S),
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                force=False,
                message=f"Without a heartbeat for {SILENCE_S:.0f} s: its process was killed, or "
                "its machine is down. The next run goes on where it was.",
            )
        ],
    )


def _tell(block: UUID) -> AutomationCore:
    """Runs that ended badly tell so themselves (`[notify]`); these cannot."""
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name=TELL,
        description="Tells of flow runs that were killed or did not start.",
        trigger=EventTrigger(
            posture=Posture.Reactive,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_OURS,
            expect={"prefect.flow-run.Crashed", "prefect.flow-run.Late"},
            for_each={"prefect.resource.id"},
            threshold=1,
            within=dt.timedelta(0),
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="cac: a run was killed or did not start",
                body="{{ flow.name }} ({{ flow_run.name }}) is {{ flow_run.state.name }}.",
            )
        ],
    )


def _block_id(client: SyncPrefectClient, block: str) -> UUID:
    from prefect.exceptions import ObjectNotFound

    kind, _, name = block.partition("/")
    try:
        found = client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        raise CacError(
            f"The Prefect server has no block {block}, which `notify.prefect_block` names.",
            "Make it there (Blocks in its pages), or take it out of the settings.",
        ) from None
    return found.id
