"""Several trackers as one."""

from collections.abc import Sequence

from showhow.tracking.tracker import Event, Tracker


class Trackers:
    """Gives each event to every tracker, in the order in which they were named: the journal first."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def record(self, event: Event) -> None:
        """Pass an event to every tracker."""
        for tracker in self._trackers:
            tracker.record(event)

    def close(self) -> None:
        """Close them all, the last named first."""
        for tracker in reversed(self._trackers):
            tracker.close()
