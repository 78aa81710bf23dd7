"""The bench of exchanges: what it counts, and that a framework which is not there is told and not left out."""

import os
import socket
import threading
import time

import pytest
from exchange_sides import Line, Meter, Turn, follow, processor_seconds
from federation import FRAMEWORKS, table

TURN = {"start_s": 20.0, "seconds": [1.0, 2.0, 6.0], "processor_s": 0.25, "down": 1e5, "up": 2e5, "processes": 3}


def test_a_line_counts_both_ways_and_changes_nothing():
    with socket.create_server(("127.0.0.1", 0)) as far:

        def answer():
            with far.accept()[0] as end:
                assert end.recv(100) == b"asked"
                end.sendall(b"answered!")

        thread = threading.Thread(target=answer)
        thread.start()
        line = Line(far.getsockname()[1])
        with socket.create_connection(("127.0.0.1", line.port), 5) as near:
            near.sendall(b"asked")
            assert near.recv(100) == b"answered!"
        thread.join(5)
        line.close()
    assert (line.up, line.down) == (5, 9)


def test_processor_seconds_are_those_of_work():
    before = processor_seconds([os.getpid()])
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    assert 0.2 < processor_seconds([os.getpid()]) - before < 3.0


def test_the_first_exchange_is_start_up_and_counts_in_no_median(tmp_path):
    turn, file = Turn(), tmp_path / "seconds"
    file.write_text("9.0\n1.0\n2.0\n")
    follow(file, turn, time.monotonic() - 5.0, lambda: Meter([os.getpid()], {}), 2, 10.0)
    assert turn.seconds == [1.0, 2.0]
    assert turn.start_s >= 5.0
    with pytest.raises(TimeoutError, match="3 of 4"):
        follow(file, turn, time.monotonic(), lambda: Meter([os.getpid()], {}), 3, 0.2)


def test_the_table_has_all_turns_and_says_what_is_not_there():
    shown = table({"sfumato": [{**TURN, "load": 1.0}, {**TURN, "load": 3.0}]}, {"nvflare": "not installed: no network"})
    [row] = [line for line in shown.splitlines() if line.startswith("| Sfumato")]
    assert row == "| Sfumato | 2.00 | 1.00 to 6.00 | 0.25 | 100 | 200 | 3 | 20 | 1.0 to 3.0 |"
    assert "| NVFLARE 2.9.0 | not installed: no network |" in shown
    assert FRAMEWORKS["sfumato"].notes in shown and FRAMEWORKS["nvflare"].notes not in shown
