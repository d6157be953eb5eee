"""Sends items from a background thread, in order, with retries until they arrive. Independent of MLflow.

The caller only puts an item on a queue. Sending an item twice must be harmless, because after a failure in the middle
it is unknown how much arrived.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger("showhow")

T = TypeVar("T")

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 30.0


class UnreachableError(Exception):
    """The receiver cannot be reached or is too busy: send the same thing again later."""


class RefusedError(Exception):
    """The receiver will never accept this: continue with the next."""


class Delivery(Generic[T]):
    """Calls `send(parcel)` in one background thread; `pack` turns the queued items into parcels (lists of items).

    `linger_seconds` is how long items are queued before they are packed. `send` raises `UnreachableError` or
    `RefusedError`; a refused parcel of several items is sent again item by item, so that one item does not cost the
    others. Any other exception is a fault in this program: it ends the thread with its traceback, and `close` counts
    the remaining items.
    """

    def __init__(
        self, send: Callable[[list[T]], None], pack: Callable[[list[T]], list[list[T]]], linger_seconds: float
    ) -> None:
        self._send, self._pack, self._linger_seconds = send, pack, linger_seconds
        self._queue: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._parcels: deque[list[T]] = deque()
        self._closing = threading.Event()
        self._arrived = threading.Event()
        self._patience_seconds = float("inf")
        self._arrived_last = 0.0
        self._refused = 0
        self._thread = threading.Thread(target=self._work, name="showhow-delivery", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Take one item; returns at once."""
        self._queue.put(item)
        self._arrived.set()

    def close(self, timeout_seconds: float) -> int:
        """Send the remaining items and return how many did not arrive; give up when nothing has arrived for about
        `timeout_seconds`."""
        self._arrived_last, self._patience_seconds = time.monotonic(), timeout_seconds
        self._closing.set()
        self._arrived.set()
        while self._thread.is_alive() and (left_seconds := self._left_seconds()) > 0.0:
            self._thread.join(left_seconds)
        return self._refused + sum(len(parcel) for parcel in self._parcels.copy()) + self._queue.qsize()

    def _work(self) -> None:
        while True:
            self._arrived.wait()
            self._closing.wait(self._linger_seconds)
            self._arrived.clear()
            gathered = []
            while not self._queue.empty():
                gathered.append(self._queue.get())
            self._parcels.extend(self._pack(gathered))
            while self._parcels and self._send_first():
                pass
            if self._closing.is_set() and (self._parcels or self._queue.empty()):
                return

    def _send_first(self) -> bool:
        """Send the first parcel, with as many retries as needed. Return False when closing timed out before."""
        wait_seconds = FIRST_WAIT_SECONDS
        while True:
            try:
                self._send(self._parcels[0])
            except UnreachableError as error:
                level = logging.WARNING if wait_seconds == FIRST_WAIT_SECONDS else logging.DEBUG
                log.log(level, "tracking: cannot send now, events are queued and sent again: %s", error)
                if not self._pause(wait_seconds):
                    return False
                wait_seconds = min(wait_seconds * 2, LONGEST_WAIT_SECONDS)
                continue
            except RefusedError as error:
                if len(refused := self._parcels[0]) > 1:
                    self._parcels.popleft()
                    self._parcels.extendleft([item] for item in reversed(refused))
                    continue
                level = logging.DEBUG if self._refused else logging.WARNING  # one refusal tends to bring many
                log.log(level, "tracking: left out, the server refuses it: %s", error)
                self._refused += 1
            self._parcels.popleft()
            self._arrived_last = time.monotonic()
            return True

    def _left_seconds(self) -> float:
        return self._arrived_last + self._patience_seconds - time.monotonic()

    def _pause(self, seconds: float) -> bool:
        """Wait, but no longer than closing allows; closing ends a long wait early. Return False when time is up."""
        if self._closing.is_set():
            time.sleep(max(0.0, min(FIRST_WAIT_SECONDS, self._left_seconds())))
        else:
            self._closing.wait(seconds)
        return self._left_seconds() > 0.0
