"""Waits for what a gateway does in the background."""

import asyncio

from aligner_proxy.gateway.shadow import ShadowCorrections
from aligner_proxy.gateway.webhook import WebhookSender


async def wait_for_shadows(shadows: ShadowCorrections) -> None:
    """Wait until all pending corrections are recorded and their callbacks have counted them."""
    while pending := shadows._tasks | shadows.judgements:
        await asyncio.wait(pending)


async def wait_for_reports(sender: WebhookSender) -> None:
    """Wait until every queued report was sent or has failed."""
    await sender._queue.join()
