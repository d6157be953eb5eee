"""Laws of claims: one process makes a thing at a time, and a dead one does not keep the others waiting."""

import subprocess
import sys
import threading
import time
from pathlib import Path

from showhow.datasets.claims import Claim, claimed

MAKER = """
import sys, time
from pathlib import Path
from showhow.datasets.claims import claimed
path, number = Path(sys.argv[1]), sys.argv[2]
with claimed(path, path / "made") as is_ours:
    if is_ours:
        path.mkdir(exist_ok=True)
        with (path / "makers").open("a") as file:
            file.write(number)
        time.sleep(0.5)
        (path / "made").write_text(number)
print((path / "made").read_text())
"""
DYING = """
import os, sys
from pathlib import Path
from showhow.datasets.claims import Claim
assert Claim(Path(sys.argv[1])).attempt()
os._exit(1)
"""


def test_of_several_processes_one_makes_it_and_the_others_find_it(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKER, str(path), str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    found = {maker.communicate(timeout=60)[0].strip() for maker in makers}
    assert len(found) == 1
    assert (path / "makers").read_text() in found
    assert not [*tmp_path.glob(".*.claim*")]


def test_the_claim_of_a_dead_process_is_broken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    subprocess.run([sys.executable, "-c", DYING, str(path)], check=False, timeout=60)
    started = time.monotonic()
    with claimed(path, path / "made") as is_ours:
        assert is_ours
    assert time.monotonic() - started < 5


def test_a_claim_without_a_heartbeat_expires_by_the_clock_of_who_waits(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    (tmp_path / ".thing.claim").write_text('{"host": "another machine", "process": 1, "beat": 99999999999999999999}')
    waiting = Claim(path, expiry_seconds=0.3)
    assert not waiting.attempt()
    time.sleep(0.4)
    assert not waiting.attempt()  # it breaks the expired one
    assert waiting.attempt()
    waiting.release()


def test_a_claim_is_let_go_also_when_the_making_fails(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    try:
        with claimed(path, path / "made"):
            raise RuntimeError("the disk is full")
    except RuntimeError:
        pass
    with claimed(path, path / "made") as is_ours:
        assert is_ours


def test_who_waits_gets_its_turn_when_the_owner_lets_go(tmp_path: Path) -> None:
    path, first = tmp_path / "thing", Claim(tmp_path / "thing")
    assert first.attempt()
    threading.Timer(0.5, first.release).start()
    with claimed(path, path / "made") as is_ours:
        assert is_ours
