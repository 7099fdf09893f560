"""A table of all runs below a folder, from files written by hand."""

import csv
import io
import json
import subprocess
import sys

import pytest

from agnet.training.models.registry import ModelSettings, record_of
from agnet.training.runs.overview import by_seeds, runs_below


def write_run(run, *, epochs=3, done=3, best=2, top1=None, n=50, state=False, seed=0, model=None, title="", **recipe):
    """Write the files of a run; ``top1``: its score on the test split, measured at the chosen epoch."""
    run.mkdir(parents=True)
    config = {
        "title": title,
        "model": record_of(model or ModelSettings(classes=3, regions=6, model="plain", backbone="resnet50")),
        "recipe": {"epochs": epochs, **recipe},
        "run": {"seed": seed},
        "boxes": {"dataset": "folder", "title": "beetles"},
        "versions": {},
    }
    (run / "config.json").write_text(json.dumps(config))
    lines = [{"epoch": k, "val_top1": k / 10, "seconds": 5.0, "total_seconds": 7.0 * k} for k in range(1, done + 1)]
    for line in lines[:best]:
        line["best"] = True
    (run / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for name, there in (("best.safetensors", done), ("last.safetensors", state)):
        if there:
            (run / name).touch()
    if top1 is not None:
        (run / "metrics-test.json").write_text(json.dumps({"top1": top1, "images": n, "epoch": best}))


@pytest.fixture
def folder(tmp_path):
    wide = ModelSettings(classes=3, regions=6, units=8, self_attention=False)
    write_run(tmp_path / "b", top1=0.9, model=wide, title="wider, without\x1b[2J attention")
    write_run(tmp_path / "deep" / "a", done=1, best=1, epochs=20, state=True)
    for seed, top1 in ((0, 0.7), (1, 0.8), (2, None)):
        write_run(tmp_path / "seeds" / f"seed-{seed}", seed=seed, top1=top1)
    write_run(tmp_path / "patient", epochs=9, patience=1)
    write_run(tmp_path / "damaged")
    (tmp_path / "damaged" / "log.jsonl").write_text('{"epoch": 1}\n{"epo')
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text('{"architectures": ["BertModel"]}')  # another program's
    return tmp_path


def test_every_run_is_read_with_what_is_missing(folder):
    found = {run.run: run for run in runs_below(folder)}
    assert list(found) == ["b", "damaged", "deep/a", "patient", "seeds/seed-0", "seeds/seed-1", "seeds/seed-2"]
    one = found["b"]
    assert (one.model, one.data, one.seeds) == ("agnet, units 8, self-attention off", "beetles", (0,))
    assert (one.epochs, one.asked, one.chosen, one.seconds) == (3, 3, (2,), 21.0)
    assert (one.validation.value, one.test.value, one.tested) == (0.2, 0.9, 50)
    assert (found["patient"].model, found["patient"].backbone) == ("plain", "resnet50")
    states = {name: (run.state, run.note) for name, run in found.items()}
    assert states["b"] == ("finished", "") and states["seeds/seed-2"] == ("finished", "not evaluated")
    assert states["patient"] == ("stopped early", "not evaluated")
    assert states["deep/a"] == ("unfinished", "in training, or --resume continues")
    assert states["damaged"][0] == "unreadable" and states["damaged"][1].startswith("log.jsonl cannot be read")


def test_seeds_of_a_run_are_one_row_with_mean_and_sd(folder):
    (seeds,) = (run for run in by_seeds(runs_below(folder)) if run.run == "seeds")
    assert seeds.seeds == (0, 1, 2) and seeds.chosen == (2, 2, 2) and seeds.seconds == 63.0
    assert seeds.test.value == pytest.approx(0.75) and seeds.test.sd == pytest.approx(0.005**0.5)  # of 0.7 and 0.8
    assert seeds.note == "seed-2: not evaluated" and len(by_seeds(runs_below(folder))) == 5


def test_a_run_without_a_fold_says_so(tmp_path):
    write_run(tmp_path / "fold-1")
    config = json.loads((tmp_path / "fold-1/config.json").read_text())
    (tmp_path / "fold-1/config.json").write_text(json.dumps(config | {"fold": {"number": 1, "images_left_out": 4}}))
    assert [run.note for run in runs_below(tmp_path)] == ["without fold 1 of train"]


def test_a_score_of_an_earlier_epoch_is_told(tmp_path):
    write_run(tmp_path / "run", top1=0.5)
    (tmp_path / "run" / "metrics-test.json").write_text('{"top1": 0.5, "images": 9, "epoch": 1}')
    assert runs_below(tmp_path)[0].note == "tested at epoch 1, not the chosen one; evaluate again"
    (tmp_path / "run" / "metrics-test.json").write_text('{"top1": "0.5')
    assert runs_below(tmp_path)[0].note == "metrics-test.json is damaged" and runs_below(tmp_path)[0].test is None


@pytest.mark.parametrize("section", ["recipe", "run", "model", "boxes", "title"])
def test_a_strangers_entries_are_told_and_never_a_traceback(tmp_path, section):
    write_run(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    for strange in ({"epochs": [], "seed": {}, "model": 7, "title": {}}, [1], 5, None):
        (tmp_path / "run" / "config.json").write_text(json.dumps({**config, section: strange}))
        (found,) = runs_below(tmp_path)
        unreadable = section in ("recipe", "run") or (section != "title" and not isinstance(strange, dict))
        assert found.run == "run" and (found.state == "unreadable") == unreadable


def test_the_command_sorts_and_prints_text_json_and_csv(folder, agnet):
    lines = agnet("runs", folder, "--sort", "-test").stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["run", "b", "seeds"]
    assert "75.0 ± 7.1%" in lines[2] and "90.0%" in lines[1] and "0:21" in lines[1] and "\x1b" not in lines[1]
    ascending = agnet("runs", folder, "--sort", "test", "--json").stdout
    assert [run["run"] for run in json.loads(ascending)][:2] == ["seeds", "b"]
    rows = list(csv.DictReader(io.StringIO(agnet("runs", folder, "--seeds", "--csv").stdout)))
    assert [row["test"] for row in rows if row["run"].startswith("seeds")] == ["0.7", "0.8", ""]
    assert "there is no run in" in agnet("runs", folder / "c", code=1).stderr
    assert "there is no folder" in agnet("runs", folder / "none", code=1).stderr
    assert "did you mean" in agnet("runs", folder, "--sort", "tests", code=2).stderr


def test_a_list_of_runs_loads_nothing_heavy():
    check = "import sys, agnet.commands.runs, agnet.training.runs.overview; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "scipy", "cv2", "h5py", "matplotlib"} & set(loaded)
