"""Two processes over gloo train as one does, and none waits for a dead one."""

import json
import signal
import socket
import sys

import numpy as np
import pytest
from safetensors.torch import load_file

from agnet.data.errors import ConfigurationError
from agnet.training.machine.distributed import ALONE, place_of_this_process
from agnet.training.runs.folder import read_config
from agnet.training.samples.loader import KeySampler
from training_crash import result_of, waiting_before

# Nine images: the last batch has one, and the last of an epoch's two steps one batch.
FROZEN = ("--backbone-lr", "0", "--epochs", "2", "--batch-size", "4", "--accumulate", "2")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and sends signals")


@pytest.mark.parametrize(("rows", "batch_size", "size"), [(9, 4, 2), (9, 4, 3), (1, 8, 4), (16, 4, 4), (5, 2, 3)])
def test_processes_share_every_batch_and_no_row_is_seen_twice(rows, batch_size, size):
    numbers = np.arange(100, 100 + rows)
    whole = list(KeySampler(numbers, batch_size, shuffle_seed=3))
    parts = [list(KeySampler(numbers, batch_size, 3, rank, size)) for rank in range(size)]
    assert {len(part) for part in parts} == {len(whole)}
    for step, batch in enumerate(whole):
        shared = [part[step] for part in parts]
        assert all(shared)  # a process without samples would not take part in the exchange
        assert sorted(key for keys in shared for key in keys if key[1] >= 0) == sorted(batch)
        for keys in shared:
            stand_ins = [key for key in keys if key[1] < 0]
            assert not stand_ins or (len(keys) == 1 and (keys[0][0], ~keys[0][1]) in batch)


def test_a_sampler_goes_on_in_the_middle_of_an_epoch():
    whole, rest = (KeySampler(np.arange(9), 2, shuffle_seed=1) for _ in range(2))
    whole.epoch = rest.epoch = 5
    rest.first_step = 3
    assert list(rest) == list(whole)[3:]


@pytest.mark.parametrize(
    "said", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "-1", "WORLD_SIZE": "2"}]
)
def test_a_place_that_cannot_be_is_an_error(said, monkeypatch):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="WORLD_SIZE=2"):
        place_of_this_process()


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert place_of_this_process() is ALONE
    assert ALONE.any(True) and not ALONE.any(False) and ALONE.gather(3) == [3] and ALONE.from_first(lambda: 4) == 4


@pytest.fixture(scope="module")
def pair(nursery, place):
    """Start a run in two processes, as torchrun does."""
    held = []

    def start(run, *options, before=("", "")):
        # Kept, so that nobody else is given the port; process 0 reuses addresses, too, and may listen there.
        held.append(socket.socket())
        held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held[-1].bind(("127.0.0.1", 0))
        port = str(held[-1].getsockname()[1])
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
        return [
            nursery.train(
                *(place / "boxes.h5", place / run, "--root", place / "images", *FROZEN, *options),
                before=before[rank],
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                **common,
            )
            for rank in (0, 1)
        ]

    yield start
    for port in held:
        port.close()


@pytest.fixture(scope="module")
def together(place, pair):
    """A run of two processes that nobody touched, and what they said."""
    both = pair("two")
    assert [child.wait() for child in both] == [0, 0], [child.said() for child in both]
    return place / "two", [child.said() for child in both]


def lines_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@linux
def test_two_processes_give_one_process_figures(nursery, place, together):
    single = nursery.train(place / "boxes.h5", place / "one", "--root", place / "images", *FROZEN)
    assert single.wait() == 0, single.said()
    one, two = lines_of(place / "one"), lines_of(place / "two")
    assert len(one) == len(two) == 2
    for single_line, shared_line in zip(one, two, strict=True):
        for name in ("train_loss", "val_loss"):
            assert shared_line[name] == pytest.approx(single_line[name], rel=1e-5), name
        for name in ("train_top1", "val_top1"):
            assert shared_line[name] == single_line[name], name
    weights, shared = (load_file(place / run / "best.safetensors") for run in ("one", "two"))
    assert weights.keys() == shared.keys()  # no wrapper's names
    for name in weights:
        np.testing.assert_allclose(weights[name], shared[name], atol=1e-5, err_msg=name)
    assert read_config(place / "two")["run"]["processes"] == 2
    assert together[1][1] == ""  # the first one speaks for both


@linux
def test_a_killed_process_ends_the_other_with_a_reason(place, pair):
    first, second = pair("killed", before=("", waiting_before(1, 1)))
    second.wait_for(lambda: "here" in second.said())
    second.send(signal.SIGKILL)
    assert first.wait(60) == 1
    last = first.said().splitlines()[-1]
    assert last.startswith("Error: ") and "process" in last and "--resume" in last, first.said()
    assert "Traceback" not in first.said()
    again = pair("killed", "--resume")
    assert [child.wait() for child in again] == [0, 0], [child.said() for child in again]


@linux
def test_a_stopped_process_is_noticed_without_any_exchange(pair):
    """It keeps its connections open: only its silence tells."""
    faster = "import agnet.training.machine.distributed as d; d._BEAT_SECONDS, d._LOST_BEATS = 0.5, 10\n"
    first, second = pair("silent", before=(faster, faster + waiting_before(0, 1)))
    second.wait_for(lambda: "here" in second.said())
    second.send(signal.SIGSTOP)
    assert first.wait(60) == 1
    assert "process 1 has given no sign of life for 5 s" in first.said()
    second.send(signal.SIGKILL)


@linux
def test_a_signal_to_one_process_stops_both_at_one_step_and_is_saved_once(place, pair, together):
    both = pair("signalled", before=("", waiting_before(1, 0)))
    both[1].wait_for(lambda: "here" in both[1].said())
    both[1].send(signal.SIGTERM)
    assert [child.wait() for child in both] == [143, 143], [child.said() for child in both]
    assert "after 1 step of epoch 2 of 2" in both[0].said()
    again = pair("signalled", "--resume")
    assert [child.wait() for child in again] == [0, 0], [child.said() for child in again]
    expected, found = (result_of(run) for run in (together[0], place / "signalled"))
    assert expected["best"] == found["best"]
    for line, other in zip(expected["log"], found["log"], strict=True):  # the sums are added up in another order
        assert line == pytest.approx(other, rel=1e-12)


@linux
def test_what_stops_the_first_process_is_said_once(place, pair):
    (place / "held").mkdir()
    (place / "held" / "last.safetensors").write_bytes(b"")
    both = pair("held")
    assert [child.wait() for child in both] == [1, 1]
    assert "already holds a run" in both[0].said() and both[1].said() == ""
