"""What is wrong with an installation, and how to mend it: `notifier doctor`.

Nothing is changed and nobody is sent anything. Each part looks by itself and within a time, so that what
can't be looked at does not hide the rest.
"""

from notifier.operations.doctor.examination import Section, examine

__all__ = ["Section", "examine"]
