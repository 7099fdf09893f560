"""Measuring and comparing by retrieval: what the commands write, against loops over queries and numbers by hand."""

import csv
import io
import json
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from scipy import stats

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError, MismatchError
from agnet.data.sets.catalogue import open_dataset
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings
from agnet.training.loop.fit import fit
from agnet.training.loop.job import Job
from agnet.training.measure.compare import compare_runs
from agnet.training.measure.compare_report import comparison_csv, comparison_text, save_comparison
from agnet.training.measure.predictions import QueryResults, load_predictions, save_predictions
from agnet.training.measure.searches import SEARCH_MEASURES, Searches, measure_searches
from agnet.training.measure.statistics import bootstrap, percentile_interval
from agnet.training.models.registry import ModelSettings
from agnet.training.models.settings import PlainSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs.checkpoints import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

RUN = RunSettings(weights="none", workers=0, device="cpu")
RECIPE = RECIPES["reid"].override(epochs=1, batch_size=8, image_size=(48, 32), warmup_epochs=0.0)
SETTINGS = PlainSettings(classes=6, backbone="mobilenet-v3-small", neck="batch-norm")
RANKS = (1, 5, 10, 20)


def paint(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 3, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(path)


def tell_apart(run):
    """Give the norms of a hardly trained network the statistics of images; without, all embeddings are alike."""
    checkpoint = load_checkpoint(run)
    for part in checkpoint.model.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.reset_running_stats()
            part.momentum = None
    images = torch.randint(0, 256, (16, 3, 6, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        checkpoint.model.train()(images.repeat_interleave(8, 2).repeat_interleave(8, 3))
    checkpoint.model.eval()
    save_checkpoint(run / "best.safetensors", checkpoint)


@pytest.fixture(scope="module")
def _original(tmp_path_factory, one_thread):
    """Eight persons to train on, two of them for validation; six to search for, one of them only by its own camera; a
    distractor. With a run on them.
    """
    place = tmp_path_factory.mktemp("persons")
    for person in range(15):
        for camera in range(1, 5):
            split = "train" if person < 8 else "query" if camera == 1 and person < 14 else "gallery"
            own = 1 if person == 13 else camera
            paint(place / "images" / split / f"{person:02}" / f"{camera}_c{own}.png", 10 * person + camera)
    index = open_dataset("reid-folder", place / "images", val_fraction=0.25)
    propose_dataset(index, ProposalSettings(method="none", primary=0, kinds="none"), place / "boxes.h5", jobs=1)
    fit(Job(place / "run", read_boxes(place / "boxes.h5"), place / "images", SETTINGS, RECIPE, RUN))
    tell_apart(place / "run")
    return place


@pytest.fixture
def persons(_original, tmp_path):
    """A folder with ``images``, ``boxes.h5`` and ``run``; free to change."""
    return shutil.copytree(_original, tmp_path / "persons")


def slow_measures(path, split):
    """Measures from the vectors of an embeddings file, query by query."""
    with safe_open(path, framework="np") as file:
        vectors, header = file.get_tensor("vectors"), json.loads(file.metadata()["agnet"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    vectors = vectors.astype(np.float64)
    precisions, firsts = [], []
    for q in range(header["queries"]):
        ranking = []
        for g in range(header["queries"] if split == "query" else 0, len(vectors)):
            same = header["persons"][g] == header["persons"][q]
            if g != q and not (same and header["cameras"][g] == header["cameras"][q]):
                ranking.append((float(vectors[q] @ vectors[g]), same))
        matches = np.array([same for _, same in sorted(ranking, key=lambda one: -one[0])])
        if matches.any():
            ranks = np.flatnonzero(matches) + 1
            precisions.append(np.mean([matches[:rank].mean() for rank in ranks]))
            firsts.append(ranks[0] - 1)
    return {"map": np.mean(precisions), **{f"cmc{k}": np.mean(np.array(firsts) < k) for k in RANKS}}


@pytest.mark.pictures
@pytest.mark.parametrize(("split", "counts"), [("query", (5, 1, 22, 4)), ("val", (8, 0, 8, 0))])
def test_a_run_is_measured_by_search(persons, agnet, split, counts):
    told = agnet("evaluate", "--run", persons / "run", "--split", split, "--workers", 0, "--json")
    found = json.loads(told.stdout)
    assert json.loads((persons / "run" / f"metrics-{split}.json").read_text()) == found
    queries, left_out, searched, distractors = counts
    assert (found["queries"], found["queries_left_out"]) == (queries, left_out)
    assert (found["gallery_images"], found["distractors"], found["cameras"]) == (searched, distractors, 4)
    wanted = slow_measures(persons / "run" / f"embeddings-{split}.safetensors", split)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-6)
    assert [found["cmc"][k - 1] for k in RANKS] == [found[f"cmc{k}"] for k in RANKS]
    for name, value in wanted.items():
        assert found["intervals"][name]["low"] <= value <= found["intervals"][name]["high"] + 1e-12
    assert found["protocol"].startswith("each query" if split == "query" else "each val image among all others")
    assert ("the epoch was chosen on these images" in told.stderr) == (split == "val")
    gallery = persons / "images" / ("gallery" if split == "query" else "train")
    assert f"next: agnet predict --run {persons / 'run'} --gallery {gallery} {persons / 'images'}" in told.stderr
    assert (persons / "run" / f"cmc-{split}.png").stat().st_size > 10_000


def test_query_is_the_default_and_every_query_is_listed(persons, agnet):
    text = agnet("evaluate", "--run", persons / "run", "--workers", 0).stdout
    assert text.startswith("images, query: 5 queries (1 more have no match) in 22 images\n")
    assert "6 persons, 4 cameras; 4 images of persons in no query" in text
    table = list(csv.DictReader(io.StringIO(agnet("evaluate", "--run", persons / "run", "--csv").stdout)))
    assert [row["measure"] for row in table] == ["mAP", *(f"CMC@{k}" for k in range(1, 51))]
    results = load_predictions(persons / "run" / "predictions-query.safetensors")
    with (persons / "run" / "predictions-query.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"query/{person:02}/1_c1.png" for person in range(8, 14)]
    assert rows[-1]["average_precision"] == rows[-1]["rank_of_first_match"] == "" and rows[-1]["person"] == "13"
    for row, precision in zip(rows[:-1], results.average_precisions, strict=False):
        assert float(row["average_precision"]) == pytest.approx(precision, rel=1e-5)
        assert (row["rank_of_first_match"] == "1") == (row["person_of_nearest"] == row["person"])
        assert row["nearest"].split("/")[1] == row["person_of_nearest"]
    assert float(table[0]["value"]) == pytest.approx(results.average_precisions[:-1].mean(), rel=1e-5)
    boxes = read_boxes(persons / "boxes.h5")
    for row in rows:
        assert boxes.names[int(row["row"])].decode() == row["path"] and row["status"] in ("ok", "few keypoints")
        assert boxes.classes[int(row["label"])] == row["person"] and "top5" not in row and int(row["width"]) > 0


def test_what_a_run_has_seen_is_refused_or_told(persons, agnet):
    refused = agnet("evaluate", "--run", persons / "run", "--split", "train", code=1)
    assert "retrieval is measured on one of val, query" in refused.stderr
    trained, copied, *_ = read_boxes(persons / "boxes.h5").classes
    shutil.copy(persons / "images/train" / copied / "1_c1.png", persons / "images/gallery/14/copy_c2.png")
    for split in ("query", "gallery"):
        paint(persons / "images" / split / trained / f"new_{'c1' if split == 'query' else 'c2'}.png", len(split))
    shutil.rmtree(persons / "images/train" / trained)
    index = open_dataset("reid-folder", persons / "images", val_fraction=0)
    propose_dataset(index, ProposalSettings(method="none", primary=0, kinds="none"), persons / "new.h5", jobs=1)
    given = ["evaluate", "--run", persons / "run", "--boxes", persons / "new.h5", "--workers", 0]
    assert "trained on or selected by 1 of the 31 query images" in agnet(*given, code=1).stderr
    told = agnet(*given, "--force", "--json")
    assert json.loads(told.stdout)["images_seen_in_training"] == 1
    assert "persons named as 1 of the 7 query persons" in told.stderr


def test_a_network_for_other_classes_is_measured_too(persons, boxes_file, _original_folder, agnet, tmp_path):
    plain = ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small", model="plain")
    recipe = RECIPES["modern"].override(epochs=1, batch_size=4, image_size=64)
    fit(Job(tmp_path / "other", read_boxes(boxes_file), _original_folder, plain, recipe, RUN))
    tell_apart(tmp_path / "other")
    given = ["evaluate", "--run", tmp_path / "other", "--boxes", persons / "boxes.h5", "--workers", 0, "--json"]
    found = json.loads(agnet(*given).stdout)
    (vectors,) = (tmp_path / "other").glob("embeddings-query-*.safetensors")
    assert found["queries"] == 5 and slow_measures(vectors, "query")["map"] == pytest.approx(found["map"])


def test_seeds_are_measured_together(persons, agnet):
    for seed in (0, 1):
        shutil.copytree(persons / "run", persons / "seeds" / f"seed-{seed}")
    told = agnet("evaluate", "--run", persons / "seeds", "--workers", 0, "--boxes", persons / "boxes.h5", "--csv")
    found = json.loads((persons / "seeds" / "metrics-query.json").read_text())
    assert found["map"]["sd"] == 0 and found["map"]["n"] == 2 and found["map"]["low"] < found["map"]["mean"]
    assert told.stdout.splitlines()[0] == "measure,mean,sd"


# Files and comparisons from results made by hand.


def results(firsts, precisions=None, **changes):
    """Results of queries whose first matches have these ranks; -1: no match."""
    firsts = np.array(firsts)
    precisions = np.where(firsts < 0, -1.0, 1 / (np.abs(firsts) + 1)) if precisions is None else np.array(precisions)
    n = len(firsts)
    found = QueryResults(
        labels=np.arange(n) % 3,
        names=tuple(f"query/{k}.jpg" for k in range(n)),
        contents=tuple(f"{k:016x}" for k in range(n)),
        classes=("anna", "bert", "空"),
        split="query",
        dataset="reid-folder",
        network="0",
        image_size=(256, 128),
        images_seen_in_training=0,
        average_precisions=precisions,
        first_match=firsts,
        nearest=("gallery/a.jpg",) * n,
        nearest_persons=("bert",) * n,
        cameras=("c1",) * n,
        gallery="0123",
    )
    return replace(found, **changes)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(name, found, seed=0):
        (tmp_path / name).mkdir(parents=True)
        config = {"model": {"model": name}, "recipe": {}, "run": {"seed": seed}, "versions": {}}
        config["boxes"] = {"images": {"query": len(found.labels)}}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        save_predictions(tmp_path / name / "predictions-query.safetensors", found)
        return tmp_path / name

    return run


def test_results_are_read_as_written_and_in_another_order(tmp_path):
    found = results([0, 3, -1, 7])
    read = load_predictions(save_predictions(tmp_path / "p.safetensors", found))
    for field in fields(QueryResults):
        assert np.array_equal(getattr(read, field.name), getattr(found, field.name)), field.name
    turned = read.ordered(np.array([3, 2, 1, 0]))
    assert turned.names == found.names[::-1] and turned.first_match.tolist() == [7, -1, 3, 0]
    assert len(turned.scores()) == 3 and turned.classes == found.classes


def test_results_that_do_not_fit_are_refused(tmp_path):
    found = results([0, 3, -1])
    for name, wrong in {
        "precision": results([0, 3], [1.0, 7.0]),
        "finite": results([0, 3], [1.0, np.nan]),
        "kind": replace(found, first_match=found.first_match.astype(np.int32)),
        "nothing": results([-1, -1]),
        "names": replace(found, nearest=("\x1b[2J", "b", "c")),
        "cameras": replace(found, cameras=("c1",) * 4),
    }.items():
        path = save_predictions(tmp_path / f"{name}.safetensors", wrong)
        with pytest.raises(CheckpointError, match="inconsistent"):
            load_predictions(path)
    (tmp_path / "p.safetensors").write_bytes(save_predictions(tmp_path / "p.safetensors", found).read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        load_predictions(tmp_path / "p.safetensors")


def test_two_runs_are_paired_over_queries(write, agnet):
    """2 queries that only the first finds and 9 that only the second does; five without a match do not count."""
    first, second = [0] * 2 + [4] * 9 + [0] * 60 + [6] * 29, [4] * 2 + [0] * 9 + [0] * 60 + [9] * 29
    order = np.random.default_rng(0).permutation(105)
    runs = [write("one", results(first + [-1] * 5)), write("two", results(second + [-1] * 5).ordered(order))]
    found = compare_runs(runs, "query")
    (challenge,) = found.challenges
    (test,) = challenge.tests
    assert (test.both_right, test.only_first, test.only_second, test.both_wrong) == (60, 2, 9, 29)
    assert challenge.p == pytest.approx(stats.binomtest(2, 11).pvalue) and found.images == 100
    values = {name: found.value for name, found in challenge.differences.items()}
    gain = np.mean(1 / (np.array(second) + 1)) - np.mean(1 / (np.array(first) + 1))
    assert values == pytest.approx({"map": gain, "cmc1": 0.07, "cmc5": 0, "cmc10": 0, "cmc20": 0})
    text = comparison_text(found)
    assert "two" in text and "+7.0 points in CMC@1" in text and "reid-folder, query: 100 queries with a match" in text
    assert [line.split(",")[0] for line in comparison_csv(found).splitlines()] == ["measure", *SEARCH_MEASURES.values()]
    assert "bootstrap" not in text
    assert save_comparison(found, runs[0] / "c.png").stat().st_size > 10_000
    assert "CMC@1" in agnet("compare", *runs).stdout


def test_seeds_are_compared_by_students_t(write):
    generator = np.random.default_rng(0)
    for name, share in (("one", 0.3), ("two", 0.8)):
        for seed in range(3):
            write(f"{name}/seed-{seed}", results(np.where(generator.random(200) < share, 0, 8)), seed)
    one = write("single", results(np.where(generator.random(200) < 0.8, 0, 8)))
    found = compare_runs([one.with_name("one"), one.with_name("two")], "query")
    (challenge,) = found.challenges
    assert challenge.test == "t-test" and len(challenge.tests) == 3 and challenge.p < 0.01
    assert "two is better than" in challenge.verdict.replace(str(one.parent) + "/", "")
    assert found.contestants[0].measures["cmc1"].sd > 0


def test_other_queries_and_galleries_are_refused(write):
    one = write("one", results([0, 3, 5]))
    for name, other, complaint in (
        ("gallery", results([0, 3, 5], gallery="4567"), "different galleries"),
        ("match", results([0, 3, -1]), "different galleries"),
        ("queries", results([0, 3]), "different images: 1 are not in both"),
        ("persons", results([0, 3, 5], classes=("anna", "bert", "carl")), "different classes"),
    ):
        with pytest.raises(MismatchError, match=complaint):
            compare_runs([one, write(name, other)], "query")


def test_intervals_are_near_the_bootstrap_for_many_queries_and_wide_for_few():
    """Wilson's interval of a mean of precisions, which vary less than rights and wrongs of the same mean."""
    generator = np.random.default_rng(0)

    def measured(n):
        firsts = generator.geometric(0.4, n) - 1
        searches = Searches(1 / (firsts + 1.0), firsts)
        return searches, measure_searches(searches, 0, n, 0, n, 2, "").intervals

    searches, intervals = measured(3000)
    for name, statistic in searches.statistics().items():
        resampled, found = percentile_interval(bootstrap([statistic], 3000)[0]), intervals[name]
        assert (found.low, found.high) == pytest.approx((resampled.low, resampled.high), abs=0.003)
    covered = 0
    truth = float((0.4 * 0.6 ** np.arange(200) / np.arange(1, 201)).sum())
    for _ in range(200):
        _, found = measured(15)
        covered += found["map"].low <= truth <= found["map"].high
    assert 180 <= covered <= 200
