"""Names in any script, written to consoles, pipes and logs that know few letters."""

import csv
import io
import json
import os
import shutil
import sys

import pytest
from click.testing import CliRunner

from agnet.cli import main

pytestmark = pytest.mark.usefixtures("small_mobilenet")

TRAIN = ["--model", "plain", "--backbone", "mobilenet-v3-small", "--weights", "none", "--image-size", 64, "--epochs", 1]
NAMES = {"ant": "кошка", "bee": "собака", "côté": "ネコ"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, _original_folder):
    """A folder ``фото`` of three classes named in Cyrillic and kana, with a boxes file and a run beside it."""
    place = tmp_path_factory.mktemp("console")
    for name, other in NAMES.items():
        shutil.copytree(_original_folder / "train" / name, place / "фото" / "train" / other)
        shutil.copytree(_original_folder / "val" / name, place / "фото" / "val" / other)
    return place


def say(arguments, charset):
    """What a command writes to a stdout of that encoding, as bytes."""
    result = CliRunner(charset=charset).invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout_bytes


def escaped(text, charset):
    return text.encode(charset, "backslashreplace")


@pytest.mark.parametrize("charset", ["cp932"])  # it has Cyrillic and kana, but no accents
def test_every_command_writes_what_the_encoding_lacks_as_escapes(photographs, charset, monkeypatch):
    monkeypatch.chdir(photographs)
    boxes, run = f"б-{charset}.h5", f"ран-{charset}"
    method = ["--method", "grid", "--jobs", 1]
    assert say(["propose", "--dataset", "folder", "--root", "фото", "--boxes", boxes, *method], charset) == (
        escaped(f"{boxes}\n", charset)
    )
    cat = escaped("кошка", charset)
    assert cat in say(["inspect", "--boxes", boxes], charset)
    assert cat + b"/0.png (image 0)" in say(["inspect", "--boxes", boxes, "--image", 0], charset)
    sheet = f"лист-{charset}.png"
    assert say(["inspect", "--boxes", boxes, "--sheet", sheet], charset) == escaped(f"{sheet}\n", charset)
    title = escaped("фото: 18 images", charset)
    assert say(["datasets", "folder", "--verify", "--root", "фото", "--jobs", 1], charset).startswith(title)
    trained = say(["train", "--boxes", boxes, "--run", run, "--workers", 0, "--device", "cpu", *TRAIN], charset)
    assert trained == escaped(f"{run}{os.sep}best.safetensors\n", charset)
    evaluate = ["evaluate", "--run", run, "--workers", 0, "--device", "cpu"]
    assert cat in say(evaluate, charset)
    assert cat in say([*evaluate, "--csv"], charset)
    predict = ["predict", "--run", run, "--jobs", 0, "--device", "cpu", "фото"]
    assert cat in say(predict, charset)
    table = say([*predict, "--format", "csv"], charset).decode(charset)
    rows = list(csv.DictReader(io.StringIO(table)))
    told = {escaped(name, charset).decode(charset) for name in NAMES.values()}
    assert len(told) == 3 and {row[f"class_{rank}"] for row in rows for rank in (1, 2, 3)} == told
    for line in say([*predict, "--json"], charset).splitlines():  # JSON loses nothing in any encoding
        assert set(json.loads(line.decode("ascii"))["probabilities"]) == set(NAMES.values())
    found = json.loads(say([*evaluate, "--json"], charset).decode("ascii"))
    assert found["images"] == 6
    compared = say(["compare", run, run], charset)
    assert escaped("ран", charset) in compared


def test_errors_and_help_are_written_to_any_console(agnet, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp437", errors="strict")
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit):
        main(["inspect", "--boxes", "нет.h5"], prog_name="agnet")
    stream.flush()
    wanted = "Error: there is no boxes file нет.h5".encode("cp437", "backslashreplace")
    assert stream.buffer.getvalue().startswith(wanted)
    assert "κ" in CliRunner().invoke(main, ["propose", "--help"]).output
    help_text = say(["propose", "--help"], "cp1252")
    assert b"\\u03ba" in help_text


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take text only")
def test_a_name_that_is_no_text_is_refused_by_propose_and_told(agnet, folder):
    (folder / "train" / "ant" / "0.png").rename(folder / "train" / "ant" / os.fsdecode(b"caf\xe9.png"))
    refused = agnet("propose", "--dataset", "folder", "--root", folder, code=1)
    assert "is not a plain relative path; rename it" in refused.stderr and "caf" in refused.stderr


def test_names_that_the_locale_cannot_write_are_a_line_with_the_remedy(agnet, monkeypatch):
    """As under LC_ALL=C where Python's UTF-8 mode is off."""
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")

    def stat(*arguments, **others):
        "кошка".encode("ascii")

    monkeypatch.setattr("agnet.data.boxes.reader.read_boxes", stat)
    refused = agnet("inspect", code=1)
    assert "'кошка' is not a valid file name in ascii" in refused.stderr and "PYTHONUTF8=1" in refused.stderr
