"""Errors of tasks, as one error that can be told."""

from __future__ import annotations


def first_cause(error: BaseException) -> BaseException:
    """The first of a group, however deep; it is what the others followed from, or as good as any."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
