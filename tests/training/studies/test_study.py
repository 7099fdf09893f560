"""The logic of a study, with commands replaced by functions that write what real ones would."""

import json
import threading
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import joblib
import numpy as np
import pytest

from agnet.data.errors import ConfigurationError
from agnet.training.measure.metrics import measure
from agnet.training.measure.predictions import SplitPredictions, save_predictions
from agnet.training.measure.statistics import holm, mcnemar
from agnet.training.recipes import RECIPES
from agnet.training.report.style import style_sheet
from agnet.training.runs.folder import BEST, CONFIG, LAST, LOG, checkpoint_hash
from agnet.training.studies.estimate import FINISHED, MEASURED, DataSize, Estimates
from agnet.training.studies.estimate import measure as measure_times
from agnet.training.studies.plan import plan_text
from agnet.training.studies.records import Record, check_unchanged, forget, is_done, record_file, write_record
from agnet.training.studies.report import results_page, write_results
from agnet.training.studies.report_text import results_csv, results_text
from agnet.training.studies.running import run_process, run_study
from agnet.training.studies.study import Options, Row, Study
from agnet.training.studies.table import results_of

IMAGES = 40
LABELS = np.repeat([0, 1], IMAGES // 2)
MODEL = {"model": "plain", "classes": 2, "backbone": "mobilenet-v3-small"}


def options(**values):
    return Options(tuple(f"--{name}={value}" for name, value in values.items()), values)


def row(name, train=None, data="birds", **propose):
    return Row(name, data, options(**propose), options(**(train or {"model": name})), note=f"<i>{name}</i>", epochs=2)


def study_in(folder, rows=None, seeds=(0, 1), **more):
    rows = rows or [row("plain"), row("agnet"), row("random", method="random")]
    return Study("tried", folder, "plain", seeds, tuple(rows), **more)


@pytest.fixture(autouse=True)
def _no_flushing(monkeypatch):
    """Leave records to the operating system: a busy disk takes most of the time of these tests."""
    monkeypatch.setattr("os.fsync", lambda file: None)


class Commands:
    """What commands would write: a run gets right the first images, as many as ``right`` says for (row, seed)."""

    def __init__(self, right=None, fail=(), stop_before=None):
        self.right, self.fail, self.stop_before, self.told = right or {}, fail, stop_before, []

    def __call__(self, words, log, environment):
        values = dict(pairwise(words))
        target = Path(values["--boxes" if words[0] == "propose" else "--run"])
        name = f"{words[0]} {target.name if words[0] == 'propose' else f'{target.parent.name}/{target.name}'}"
        if name == self.stop_before:
            raise KeyboardInterrupt
        self.told.append(f"{name}{' --resume' if '--resume' in words else ''}")
        if name in self.fail:
            log.write_text("something\nError: no memory\n")
            return 1
        getattr(self, f"_{words[0]}")(target)
        return 0

    def _propose(self, boxes):
        boxes.write_bytes(b"boxes")

    def _train(self, run):
        run.mkdir(parents=True)
        (run / BEST).write_bytes(str(run).encode())
        config = {"model": MODEL, "recipe": {}, "run": {"seed": int(run.name[5:])}, "versions": {}}
        config["boxes"] = {"fingerprint": "f", "images": {"train": 80, "test": IMAGES}}
        (run / CONFIG).write_text(json.dumps(config))

    def _evaluate(self, run):
        right = self.right.get((run.parent.name, int(run.name[5:])), range(20))
        answers = np.where(np.isin(np.arange(IMAGES), list(right)), LABELS, 1 - LABELS)
        logits = np.eye(2, dtype=np.float32)[answers]
        names = tuple(f"{k}.jpg" for k in range(IMAGES))
        network = checkpoint_hash(run / BEST)
        found = SplitPredictions(LABELS, names, names, ("a", "b"), "test", "birds", network, 32, 0, logits=logits)
        save_predictions(run / "predictions-test.safetensors", found)
        (run / "metrics-test.json").write_text(json.dumps(measure(logits, LABELS, ("a", "b")).to_dict()))


def test_rows_share_boxes_files_and_seeds_take_turns(tmp_path):
    commands = Commands()
    study = study_in(tmp_path)
    outcomes = run_study(study, run=commands)
    shared, other = (unit.target.name for unit in study.units[:2])
    assert commands.told == [
        f"propose {shared}",
        f"propose {other}",
        *(
            f"{kind} {name}/seed-{s}"
            for s in (0, 1)
            for name in ("plain", "agnet", "random")
            for kind in ("train", "evaluate")
        ),
    ]
    assert "random" in other and "random" not in shared
    assert all(one.code == 0 for one in outcomes)
    assert study.boxes(study.rows[0]) == study.boxes(study.rows[1]) != study.boxes(study.rows[2])


def test_hyphens_in_names_do_not_make_two_units_one(tmp_path):
    study = study_in(tmp_path, [row("b-c", data="a"), row("c", data="a-b")], seeds=(0, 1))
    assert len({record_file(study, unit).name.casefold() for unit in study.units}) == len(study.units) == 2 + 8


@pytest.mark.parametrize("stopped", ["train agnet/seed-0", "evaluate plain/seed-1"])
def test_after_a_kill_nothing_finished_is_repeated(tmp_path, stopped):
    rows = [row("plain"), row("agnet")]
    study, whole = study_in(tmp_path / "a", rows), Commands()
    run_study(study_in(tmp_path / "b", rows), run=whole)
    first, second = Commands(stop_before=stopped), Commands()
    with pytest.raises(KeyboardInterrupt):
        run_study(study, run=first)
    run_study(study, run=second)
    assert first.told + second.told == whole.told
    assert run_study(study, run=second) == []


def test_a_half_done_training_is_resumed_and_an_outdated_evaluation_repeated(tmp_path):
    study = study_in(tmp_path)
    run_study(study, run=Commands())
    half, old = tmp_path / "runs/birds/agnet/seed-1", tmp_path / "runs/birds/random/seed-0"
    (half / LAST).write_bytes(b"state")
    (old / BEST).write_bytes(b"another network")

    class Resuming(Commands):
        def _train(self, run):
            (run / LAST).unlink()

    commands = Resuming()
    run_study(study, run=commands)
    assert commands.told == ["evaluate random/seed-0", "train agnet/seed-1 --resume"]


def test_a_failure_costs_what_depends_on_it_only(tmp_path):
    study, said = study_in(tmp_path, seeds=(0,)), []
    random_boxes = study.units[1].target.name
    commands = Commands(fail=("train agnet/seed-0", f"propose {random_boxes}"))
    outcomes = run_study(study, run=commands, say=said.append)
    assert [one.unit.kind for one in outcomes if one.code] == ["propose", "train"]
    assert commands.told[-1] == "train agnet/seed-0" and "evaluate plain/seed-0" in commands.told
    assert any("train birds/agnet, seed 0: failed" in line and "Error: no memory" in line for line in said)
    again = Commands()
    run_study(study, run=again)
    assert [told.split()[1].split("/")[0] for told in again.told[1:]] == ["agnet", "agnet", "random", "random"]


def test_a_changed_row_is_refused_until_it_is_restarted(tmp_path):
    run_study(study_in(tmp_path), run=Commands())
    changed = study_in(tmp_path, [row("plain"), row("agnet", {"lr": 0.1}), row("random", method="random")])
    with pytest.raises(
        ConfigurationError, match=r"agnet: model was agnet, is not given, lr was not given, is 0.1.*--restart agnet"
    ):
        check_unchanged(changed)
    assert [one.name for one in forget(changed, ["agnet"])] == ["agnet"]
    check_unchanged(changed)
    commands = Commands()
    run_study(changed, run=commands)
    assert commands.told == [f"{kind} agnet/seed-{seed}" for seed in (0, 1) for kind in ("train", "evaluate")]


def test_each_device_has_one_command_at_a_time(tmp_path):
    busy, seen, meet = {}, set(), threading.Barrier(2, timeout=5)

    class Watched(Commands):
        def __call__(self, words, log, environment):
            if words[0] == "train":
                device = words[words.index("--device") + 1]
                assert busy.setdefault(device, 0) == 0
                busy[device] += 1
                seen.add(device)
                meet.wait()  # passes only if two run at once
            code = super().__call__(words, log, environment)
            if words[0] == "train":
                busy[device] -= 1
            return code

    rows = [row("plain"), row("agnet")]
    with joblib.parallel_config(backend="threading"):
        outcomes = run_study(study_in(tmp_path, rows, (0,)), run=Watched(), devices=("cuda:0", "cuda:1"))
    assert len(outcomes) == 5
    assert seen == {"cuda:0", "cuda:1"}


def test_two_processes_do_not_run_one_study(tmp_path):
    def nested(words, log, environment):
        run_study(study_in(tmp_path), run=Commands())

    with pytest.raises(ConfigurationError, match="another process runs the study"):
        run_study(study_in(tmp_path), run=nested)


def test_a_command_runs_as_a_user_would_run_it(tmp_path):
    assert run_process(["propos"], tmp_path / "log.txt", {}) == 2
    assert "did you mean propose?" in (tmp_path / "log.txt").read_text()


# --- time


def test_the_time_is_that_of_other_seeds_else_of_measured_steps(tmp_path):
    study = study_in(tmp_path, seeds=(0, 1, 2))
    units = {unit.name: unit for unit in study.units}
    done, other = units["train-agnet@birds-seed-0"], units["train-agnet@birds-seed-2"]
    write_record(record_file(study, done), Record("birds/agnet", {}, code=0, seconds=30.0))
    estimates = Estimates(study, {other.name: 99.0, units["train-plain@birds-seed-0"].name: 10.0})
    assert (estimates.of(other).seconds, estimates.of(other).source) == (30.0, FINISHED)
    plain = units["train-plain@birds-seed-0"]
    assert (estimates.of(plain).seconds, estimates.of(plain).source) == (10.0, MEASURED)
    assert estimates.of(units["evaluate-plain@birds-seed-0"]) is None and estimates.left() is None
    plain.target.mkdir(parents=True)
    (plain.target / LOG).write_text("{}\n")  # one of two epochs
    assert estimates.left([done, other, plain]) == 30 + 10 / 2
    assert Estimates(study, estimates.measured, jobs=2).left([other]) == 15


def test_measured_steps_are_scaled_to_the_whole_data_set(tmp_path):
    """A made-up machine: 2 s to start, 0.1 s to propose an image, 0.5 s to train on one, 0.25 s to validate one."""
    study, begun = study_in(tmp_path, [row("plain")], seeds=(0, 1)), set()

    def ask(words):
        if not words:
            return 2.0, ""
        if words[0] == "propose":
            again, sample = words in begun, int(words[words.index("--limit") + 1])
            assert sample == 300
            begun.add(words)
            return 2.0 + (0 if again else 0.1 * sample), ""
        assert words[-2:] == ("--dry-run", "--json") and "--seed" not in words
        phase = {"epochs": 3, "seconds_per_step": 8 * 0.5, "seconds_per_epoch": 60 * 0.5 + 20 * 0.25}
        told = {"images": {"train": 60, "val": 20}, "images_per_step": 8, "phases": [phase], "features": None}
        return 9.0, json.dumps(told)

    size = DataSize({"train": 600, "val": 200, "test": 400}, least=300)
    found = measure_times(study, lambda row: size, ask=ask)
    seconds = [found.of(unit).seconds for unit in study.units]
    training = 2 + 3 * (600 * 0.5 + 200 * 0.25)
    assert seconds == pytest.approx([2 + 120, training, 2 + 100, training, 2 + 100])
    assert Estimates.read(study).measured == found.measured
    assert not any(is_done(study, unit) for unit in study.units)
    text = plan_text(study, found)
    assert "5 commands to run, about 40.5 minutes" in text and "a few measured steps" in text


def test_features_are_computed_by_the_first_row_that_needs_them_and_again_to_evaluate(tmp_path):
    def ask(words):
        if words[:1] != ("train",):
            return 2.0, ""
        phase = {"epochs": 3, "seconds_per_step": 8 * 0.5, "seconds_per_epoch": 60 * 0.5 + 20 * 0.25}
        features = {"seconds": 80 * 0.1, "file": "alike.h5" if "--model=deep" not in words else "deep.h5"}
        told = {"images": {"train": 60, "val": 20}, "images_per_step": 8, "phases": [phase], "features": features}
        return 9.0, json.dumps(told)

    study = study_in(tmp_path, [row("plain"), row("agnet"), row("deep")], seeds=(0, 1))
    found = measure_times(study, lambda row: DataSize({"train": 600, "val": 200, "test": 400}), ask=ask)
    training, evaluation, features = 2 + 3 * (600 * 0.5 + 200 * 0.25), 2 + 400 * (0.25 + 0.1), 800 * 0.1
    seconds = [found.of(unit).seconds for unit in study.units[1:]]
    with_features = [training + features, evaluation, training, evaluation, training + features, evaluation]
    assert seconds == pytest.approx([*with_features, *3 * [training, evaluation]])


def test_what_cannot_be_measured_stays_unknown(tmp_path):
    said = []

    def ask(words):
        if words[:1] == ("train",):
            raise ConfigurationError("no batch suits 5 images")
        return 2.0, ""

    study = study_in(tmp_path, [row("plain")], seeds=(0,))
    found = measure_times(study, lambda row: DataSize({"train": 5}), ask=ask, say=said.append)
    assert list(found.measured) == [study.units[0].name] and said[-1] == "not measured: no batch suits 5 images"
    assert "3 commands to run, time unknown" in plan_text(study, found)


# --- the table

RIGHT = {
    ("plain", 0): range(20),
    ("plain", 1): range(24),
    ("agnet", 0): range(2, 36),
    ("agnet", 1): range(32),
    ("random", 0): [*range(10), *range(20, 32)],
    ("random", 1): range(22),
}


@pytest.fixture
def finished(tmp_path):
    study = study_in(tmp_path)
    run_study(study, run=Commands(RIGHT))
    return study


def test_the_table_has_means_differences_and_corrected_p(finished):
    (table,) = results_of(finished).tables
    assert [line.row for line in table.lines] == ["plain", "agnet", "random"]
    plain, agnet, random = table.lines
    assert plain.difference is None
    assert plain.measures["top1"].mean == pytest.approx(22 / 40)
    assert plain.measures["top1"].sd == pytest.approx(np.std([20 / 40, 24 / 40], ddof=1))
    assert agnet.difference.value == pytest.approx((34 + 32 - 44) / 80)
    assert agnet.mcnemar == pytest.approx({0: mcnemar(2, 16), 1: mcnemar(0, 8)})
    assert [agnet.p_holm, random.p_holm] == pytest.approx(holm([agnet.p, random.p]))
    assert agnet.difference.interval.low < agnet.difference.value < agnet.difference.interval.high
    assert agnet.seconds is not None and agnet.parameters is None  # its recipe is not a run's


def test_the_cost_is_that_of_the_trained_size(finished, tmp_path):
    """vgg16's first convolution: 3 x 3 x 3 x 64 multiply-adds for each pixel, and so in proportion for the others."""
    for name, size in (("plain", 32), ("agnet", 64)):
        file = tmp_path / f"runs/birds/{name}/seed-0" / CONFIG
        config = json.loads(file.read_text())
        config["model"]["backbone"] = "vgg16"
        config["recipe"] = asdict(RECIPES["modern"].override(image_size=size))
        file.write_text(json.dumps(config))
    (table,) = results_of(finished).tables
    plain, agnet, _ = table.lines
    assert plain.parameters == agnet.parameters == 14_714_688 + 512 * 2 + 2
    assert agnet.gflops - 4 * plain.gflops == pytest.approx(-3 * 2 * 512 * 2 / 1e9)


def test_rows_that_are_not_finished_are_shown_as_such(finished, tmp_path):
    (tmp_path / "runs/birds/agnet/seed-1/metrics-test.json").unlink()
    results = results_of(finished)
    (table,) = results.tables
    assert [line.state for line in table.lines] == ["", "1 of 2 seeds", ""]
    assert table.lines[1].difference is None and table.lines[1].measures["top1"].mean == pytest.approx(34 / 40)
    assert table.lines[2].p_holm == min(1, 2 * table.lines[2].p)  # as if agnet had been compared, too
    text = results_text(results)
    assert "agnet (1 of 2 seeds)" in text and "not finished, and so not compared: agnet" in text


def test_seeds_that_the_study_does_not_name_do_not_count(finished, tmp_path):
    fewer = study_in(tmp_path, seeds=(0,))
    (table,) = results_of(fewer).tables
    assert [line.measures["top1"].mean for line in table.lines] == pytest.approx([20 / 40, 34 / 40, 22 / 40])
    assert table.lines[1].p == pytest.approx(mcnemar(2, 16))


def test_a_study_that_has_not_begun_has_a_table(tmp_path):
    text = results_text(results_of(study_in(tmp_path)))
    assert text.count("(not finished)") == 3


def test_every_file_has_the_same_numbers_and_names_stay_text(finished, tmp_path):
    results = results_of(finished)
    write_results(tmp_path / "out", results)
    found = {suffix: (tmp_path / "out" / f"results.{suffix}").read_text() for suffix in ("txt", "md", "csv", "html")}
    for suffix in ("txt", "md", "html"):
        assert "+27.50" in found[suffix] and "agnet" in found[suffix], suffix
    lines = results_csv(results).splitlines()
    assert lines[3].startswith("birds,agnet,2,2,top1,0.825,0.0353553,0.275,") and len(lines) == 1 + 3 * 2
    assert float(lines[4].split(",")[7]) == pytest.approx(
        float(lines[4].split(",")[5]) - float(lines[2].split(",")[5]), abs=1e-5
    )
    assert "&lt;i&gt;agnet&lt;/i&gt;" in found["html"] and "<i>agnet" not in found["html"]
    assert style_sheet() in found["html"]  # the run's page has it, too
    assert found["html"].count("<svg") == 2 and "http" not in found["html"].replace("http-equiv", "")
    assert json.loads((tmp_path / "out/results.json").read_text())["tables"][0]["lines"][1]["row"] == "agnet"
    assert str(tmp_path) not in "".join(found.values())


def test_repeated_splits_are_one_more_table(tmp_path):
    names = [f"birds-split-{split}" for split in (0, 1, 2)]
    rows = [row(name, data=data) for data in names for name in ("plain", "agnet")]
    study = study_in(tmp_path, rows, seeds=(0,), splits=(0, 1, 2))

    class BySplit(Commands):
        def _evaluate(self, run):
            split = int(run.parent.parent.name[-1])
            self.right = {("plain", 0): range(20), ("agnet", 0): range(24 + 2 * split)}
            super()._evaluate(run)

    run_study(study, run=BySplit())
    results = results_of(study)
    (over,) = results.over_splits
    differences = np.array([4, 6, 8]) / 40
    assert over.splits == 3 and [line.row for line in over.lines] == ["plain", "agnet"]
    assert over.lines[1].difference.value == pytest.approx(differences.mean())
    # 40 test images and 80 training images; the 97.5 % quantile of Student's t with 2 degrees of freedom is 4.3027
    half = 4.30265 * np.sqrt((1 / 3 + 40 / 80) * differences.var(ddof=1))
    interval = over.lines[1].difference.interval
    assert [interval.low, interval.high] == pytest.approx([0.15 - half, 0.15 + half], abs=1e-5)
    assert "over 3 splits" in results_text(results) and "over 3 splits" in results_page(results)


def test_predicted_and_real_times_are_told(finished):
    unit = finished.units[2]
    write_record(record_file(finished, unit), Record(unit.row.key, {}, code=0, seconds=30.0))
    (finished.folder / "estimates.json").write_text(json.dumps({"units": {unit.name: 20}}))
    assert "predicted 20.0 seconds, real 30.0 seconds (1.50 times)" in results_text(results_of(finished))
