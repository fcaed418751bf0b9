"""`GET /v1/events/{id}`: what became of an event."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from notifier.channel import TransientFailure
from tests.api.conftest import Api
from tests.support.channels import ScriptedChannel
from tests.support.service import address_of, open_service
from tests.support.waiting import until


async def test_where_each_delivery_stands_and_how_it_got_there(
    api: Api, redis_url: str, tmp_path: Path
) -> None:
    post = ScriptedChannel()
    post.answers[address_of("ada")] = [TransientFailure("greylisted", answer="451 later")]
    everyone = ["ben", {"id": "ada", "email": address_of("ada")}]
    event = {"id": "a/b ü", "type": "ping", "recipients": everyone}

    async def trace() -> Any:
        async with api.publisher as client:
            answer = await client.get(f"/v1/events/{quote(event['id'], safe='')}")
        assert answer.status_code == 200
        return {row["recipient"]: row for row in answer.json()["recipients"]}

    async with open_service(redis_url, tmp_path) as service:
        await service.publish(event)
        waiting = await trace()
        assert waiting["ada"] == {"recipient": "ada", "deliveries": [], "steps": []}

        async def is_over() -> bool:
            return len(post.sent) == 1 and bool((await trace())["ben"]["deliveries"])

        async with service.worker([post]):
            await until(is_over)

    found = await trace()
    [delivery] = found["ada"]["deliveries"]
    assert (delivery["channel"], delivery["state"], delivery["attempts"]) == ("post", "delivered", 2)
    assert [step["what"] for step in found["ada"]["steps"]] == ["routed", "parked", "delivered"]
    parked = found["ada"]["steps"][1]
    assert (parked["attempt"], parked["reason"], parked["answer"]) == (1, "greylisted", "451 later")
    assert parked["until"] >= parked["at"]  # its jitter may be nothing
    [skipped] = found["ben"]["deliveries"]
    assert (skipped["channel"], skipped["state"], skipped["reason"]) == ("post", "skipped", "no_address")


async def test_who_may_ask(api: Api) -> None:
    for client, status in (
        (api.publisher, 404),
        (api.operator, 404),
        (api.backend, 403),
        (api.user("ada"), 401),
    ):
        async with client:
            answer = await client.get("/v1/events/unknown")
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
    assert (await api.client.get("/v1/events/unknown")).status_code == 401
