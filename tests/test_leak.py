"""The diagnostic of protocols in studies/, which is outside the package."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

STUDIES = Path(__file__).parents[1] / "studies"


@pytest.fixture(scope="module")
def leak():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(STUDIES)
        import leak

        yield leak


def test_wrong_regions_are_concatenated_by_region_and_read_by_image_and_the_whole_image_is_its_own(leak):
    batch, regions = 3, 4
    tokens = torch.arange(batch * (regions + 1) * 2.0).reshape(batch, regions + 1, 1, 2)
    found = leak.mixed(lambda maps, boxes, mean: tokens)(None, None)
    line = [tokens[image, region] for region in range(regions) for image in range(batch)]
    for image in range(batch):
        for region in range(regions):
            assert torch.equal(found[image, region], line[image * regions + region])
        assert torch.equal(found[image, -1], tokens[image, -1])


def test_each_protocol_chooses_its_epoch_and_is_paired_with_the_sound_one(leak):
    def epoch(val, test):
        return {"val random": val, "test random": test, "val sorted": val, "test sorted": test}

    sound = [epoch("0110", "00001111"), epoch("0111", "00000111"), epoch("0001", "01111111")]
    wrong = [epoch("0000", "11111111"), epoch("1000", "00001111"), epoch("1000", "11111111")]
    runs = [{"sound": sound, "wrong": wrong, "none": sound}] * 2
    from leak_table import PROTOCOLS, difference, report

    shares = [one.right(runs[0]).mean() for one in PROTOCOLS]
    assert shares == [3 / 8, 7 / 8, 4 / 8, 1, 4 / 8, 1, 3 / 8, 7 / 8]
    value, low, high = difference(PROTOCOLS[1], runs)
    # Bonett and Price: one image added on either side; equal seeds add nothing, and Student's t has 7 degrees.
    values = np.array([0, 1, 1, 1, 1, 0, 0, 0, 1, -1])
    half = 2.364624 * (values.var() / 10) ** 0.5
    assert (value, low, high) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-6)
    assert difference(PROTOCOLS[6], runs)[0] == 0
    assert "| epoch chosen on test | 87.5 ± 0.0 |" in report({"one": runs}, as_markdown=True)


def test_one_command_ends_in_a_table_and_repeats_no_finished_seed(
    leak, folder, boxes_file, tmp_path, monkeypatch, capsys, small_mobilenet, one_thread
):
    file = tmp_path / "leak.yaml"
    file.write_text(
        "{seeds: [0, 1], epochs: 2, batch: 2, backbone: mobilenet-v3-small, weights: none, channels: 16,\n"
        f" kinds: both, data: {{small: {{boxes: '{boxes_file}', root: images}}}}}}"
    )
    words = ["leak.py", str(file), "--root", str(tmp_path), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    leak.main()
    table = capsys.readouterr().out
    assert table == (tmp_path / "out" / "leak.txt").read_text(encoding="utf-8")
    assert "small, 2 seeds" in table and "wrong regions, sorted, chosen on test" in table
    saved = json.loads((tmp_path / "out" / "small-seed-1.json").read_text(encoding="utf-8"))
    assert saved["settings"]["primary"] == 3 and set(saved["runs"]["wrong"][1]) == {
        *("val random", "val sorted", "test random", "test sorted")
    }
    (tmp_path / "out" / "small-seed-0.json").unlink()
    leak.main()
    assert capsys.readouterr().out == table  # a seed does not depend on the others
    monkeypatch.delattr(leak, "features")
    leak.main()  # trains nothing
    assert capsys.readouterr().out == table
    monkeypatch.setattr(sys, "argv", [*words, "--set", "batch=3"])
    with pytest.raises(SystemExit, match=r"small-seed-0.json was made with batch 2, not 3"):
        leak.main()
    for setting, complaint in (
        ("bach=3", "unknown entry 'bach'"),
        ("seeds=a", "seeds: wanted whole numbers, got a"),
        ("data=a", "data: wanted the options of each data set"),
    ):
        monkeypatch.setattr(sys, "argv", [*words, "--set", setting])
        with pytest.raises(SystemExit, match=complaint):
            leak.main()
    (tmp_path / "out" / "small-seed-0.json").write_text("[1]")
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match=r"small-seed-0.json has no runs of this script"):
        leak.main()
