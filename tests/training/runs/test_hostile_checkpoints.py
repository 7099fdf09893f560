"""A checkpoint may come from a stranger: whatever is changed in it, it loads soundly or is refused in one line."""

import json
import random
import resource
import struct
import sys
import time
from copy import deepcopy

import pytest
import torch

from agnet.data.errors import CheckpointError
from agnet.training.models.registry import ModelSettings
from agnet.training.runs.checkpoints import load_checkpoint, load_state_dict, save_checkpoint

pytestmark = pytest.mark.usefixtures("small_mobilenet")

MUTATIONS = 200
SETTINGS = ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small", model="plain")


@pytest.fixture(scope="module")
def good(tmp_path_factory, untrained):
    return save_checkpoint(tmp_path_factory.mktemp("good") / "best.safetensors", untrained(SETTINGS)).read_bytes()


def parts(content):
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def with_own(content, change):
    """The file with our own header changed, and no hash that would tell."""
    header, data = parts(content)
    own = json.loads(header["__metadata__"]["agnet"])
    del own["blake2b"]
    changed = change(own)
    text = changed if isinstance(changed, str) else json.dumps(own)
    return joined(header | {"__metadata__": {"agnet": text}}, data)


NONSENSE = (
    *(
        None,
        True,
        -1,
        0,
        2**31,
        2**63,
        10**30,
        10**400,
        1e308,
        float("inf"),
        float("nan"),
        "",
        "a" * 10_000,
        "\x00",
        "../x",
    ),
    *([], [[]], [1] * 1000, {}, {"a": {}}, ["ant"] * 3, ["ant", 1, None], "abc", [float("nan")] * 3, [1e-300] * 3),
)


def test_names_in_a_strangers_header_are_printed_in_one_short_line(good, tmp_path):
    def change(own):
        own["model"] |= {"\x1b[31m\u202ered": 1, "very" * 1000: 2}

    (tmp_path / "best.safetensors").write_bytes(with_own(good, change))
    with pytest.raises(CheckpointError) as found:
        load_checkpoint(tmp_path / "best.safetensors")
    said = str(found.value)
    assert (
        said.isprintable()
        and "unknown model settings \N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}red, " in said
    )
    assert len(said) < len(str(tmp_path)) + 400


def own_header(content, draw):
    """A key of our own header, or one of the keys within, gets another value, a wrong name, or goes."""

    def change(own):
        place = own
        key = draw.choice(sorted(own))
        if isinstance(own[key], dict) and draw.random() < 0.7:
            place, key = own[key], draw.choice(sorted(own[key]))
        what = draw.randrange(8)
        value = place.pop(key)
        if what == 0:
            place[f"{key}_"] = value
        elif what > 1:
            place[key] = deepcopy(draw.choice(NONSENSE))

    return with_own(content, change)


def bombs(content, draw):
    depth = draw.choice((100, 990, 5_000, 200_000))
    header, data = parts(content)
    return draw.choice(
        (
            lambda: with_own(content, lambda own: "[" * depth + "]" * depth),
            lambda: with_own(content, lambda own: '{"a":' * depth + "1" + "}" * depth),
            lambda: with_own(content, lambda own: own.update(classes=[["x"] * 10] * (depth // 10))),
            lambda: with_own(content, lambda own: '{"epoch": ' + "9" * depth + "}"),
            lambda: joined(b"[" * depth, data),
            lambda: joined(b'{"a":' * depth, data),
            lambda: joined(header | {f"t{number}": header["classifier.bias"] for number in range(depth // 100)}, data),
        )
    )()


def tensor_header(content, draw):
    """The type, the shape or the place of a tensor is another."""
    header, data = parts(with_own(content, lambda own: None) if draw.random() < 0.5 else content)
    entry = header[draw.choice([name for name in header if name != "__metadata__"])]
    key = draw.choice(("dtype", "shape", "data_offsets"))
    if key == "dtype":
        types = ["F16", "BF16", "I32", "U32", "I64", "F64", "C64", "BOOL", "U8", "F8_E4M3", "F4", "F6_E2M3", "X", "", 3]
        entry[key] = draw.choice(types)
    elif key == "shape":
        shape = entry[key]
        choices = [[], [0], [-1], [2**63, 2], [2**32, 2**32], shape[::-1], [*shape, 1], [1.5], ["3"], None, [10**30]]
        entry[key] = draw.choice(choices)
    else:
        first, last = entry[key]
        choices = [
            [0, last],
            [first, first],
            [last, first],
            [first, 2**62],
            [-4, last],
            [first],
            [0, 0],
            [first + 4, last],
        ]
        entry[key] = draw.choice(choices)
    return joined(header, data)


def flipped(content, draw):
    """A bit of the header's length, the header or the tensors turns."""
    content = bytearray(content)
    length = struct.unpack("<Q", content[:8])[0]
    at = draw.choice((draw.randrange(8), draw.randrange(8, 8 + length), draw.randrange(8 + length, len(content))))
    content[at] ^= 1 << draw.randrange(8)
    return bytes(content)


def cut_or_longer(content, draw):
    length = struct.unpack("<Q", content[:8])[0]
    return draw.choice(
        (
            lambda: content[: draw.randrange(len(content))],
            lambda: content[: 8 + draw.randrange(length)],
            lambda: content + bytes(draw.randrange(1, 5000)),
            lambda: (
                struct.pack("<Q", draw.choice((0, 1, length - 1, length + 1, 2**40, 2**63, 2**64 - 1))) + content[8:]
            ),
        )
    )()


KINDS = (own_header, own_header, bombs, tensor_header, flipped, cut_or_longer)


def test_two_hundred_changed_checkpoints_load_soundly_or_are_refused_in_one_line(good, tmp_path):
    path = tmp_path / "best.safetensors"
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    path.write_bytes(good)
    with torch.no_grad():
        expected = load_checkpoint(path).model(images).logits
    refused, memory = 0, peak_megabytes()
    for number in range(MUTATIONS):
        content = KINDS[number % len(KINDS)](good, random.Random(number))
        path.write_bytes(content)
        started = time.monotonic()
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 2000, (number, str(error)[:500])
            assert "best.safetensors" in str(error), number
        else:  # what was changed makes no difference to the numbers, and all types are as promised
            with torch.no_grad():
                got = checkpoint.model(images).logits
            assert got.shape == (1, 3) and type(checkpoint.epoch) is int, number
            assert all(type(name) is str for name in checkpoint.classes) and len(checkpoint.classes) == 3, number
            assert isinstance(checkpoint.proposals, dict), number
            if KINDS[number % len(KINDS)] is not tensor_header:
                assert torch.allclose(got, expected), number
        assert time.monotonic() - started < 20, number
    assert MUTATIONS * 0.6 < refused < MUTATIONS, refused
    assert peak_megabytes() - memory < 500


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.mark.parametrize("part", ["header", "tensors"])
def test_a_bit_that_turned_on_the_disk_is_noticed(good, tmp_path, part):
    """In a weight, it would change a little what is predicted, and nothing would tell."""
    content = bytearray(good)
    at = len(content) - 1000 if part == "tensors" else content.index(b'\\"epoch\\": 4') + 11
    content[at] ^= 1
    (tmp_path / "best.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        load_checkpoint(tmp_path / "best.safetensors")


def test_files_of_other_programs_need_no_hash(good, tmp_path):
    (tmp_path / "best.safetensors").write_bytes(with_own(good, lambda own: None))
    assert load_checkpoint(tmp_path / "best.safetensors").epoch == 4
    assert "classifier.bias" in load_state_dict(tmp_path / "best.safetensors")
