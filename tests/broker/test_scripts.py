"""Scripts of a process that stays are those of its own version."""

from __future__ import annotations

from pathlib import Path

import notifier.broker
from notifier.bootstrap import open_runtime
from notifier.broker.scripts import script
from notifier.settings import Settings


async def test_a_process_that_has_started_reads_no_script_any_more(redis_url: str) -> None:
    names = [file.stem for file in (Path(notifier.broker.__file__).parent / "lua").glob("*.lua")]
    assert names
    script.cache_clear()
    async with open_runtime(Settings(redis_url=redis_url)):
        read = script.cache_info().misses
        for name in names:
            script(name)
        assert script.cache_info().misses == read
