"""Changing the number of partitions of an installation that stands still.

Each number of partitions is a layout with key names of its own (`Keys.layout`), so everything moves from
names that nobody uses any more to names that nobody uses yet. `change` first writes down in `ntf:meta` what
it is about, and from then on no process starts; closes every partition of the old layout, so that whoever
still holds on to it is refused; then moves one thing after the other; and at the end says in `ntf:meta` which
layout counts. It may die anywhere: each step can be done again, and the next `change` goes on."""

from notifier.operations.partitions.change import (
    Inventory,
    Layout,
    Moved,
    StillServed,
    change,
    checked,
    living,
    look,
    survey,
)

__all__ = ["Inventory", "Layout", "Moved", "StillServed", "change", "checked", "living", "look", "survey"]
