"""Publishing by HTTP on every shape of broker."""

from __future__ import annotations

import pytest

from tests.api.conftest import serving
from tests.support.service import Service

pytestmark = pytest.mark.slow

EVENTS = [{"type": "like", "recipient": f"u{i}"} for i in range(100)]  # of all partitions, so of all nodes


async def test_a_request_is_carried_out_once_and_its_answer_comes_again(service: Service) -> None:
    async with serving(service.url) as api, api.publisher as client:
        assert (await client.get("/readyz")).status_code == 200
        for number, is_replayed in ((1, False), (2, False), (1, True), (2, True)):
            response = await client.post(
                "/v1/events", json=EVENTS, headers={"Idempotency-Key": f"request-{number}"}
            )
            assert (response.status_code, "Idempotent-Replayed" in response.headers) == (202, is_replayed)
            assert len(response.json()["events"]) == len(EVENTS)
        assert await service.waiting("events") == 2 * len(EVENTS)
    async with serving(service.url) as api, api.operator as client:
        text = (await client.get("/metrics")).text
        assert f'notifier_queue_entries{{queue="events",state="waiting"}} {2 * len(EVENTS)}' in text
