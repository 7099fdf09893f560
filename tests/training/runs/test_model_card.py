"""The model card of a run: what its files say, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from report_runs import HOSTILE, predictions_of, write_run

from agnet.data.errors import CheckpointError
from agnet.data.sampling import Sampling
from agnet.training.models.contract import Views
from agnet.training.models.settings import PlainSettings
from agnet.training.runs.checkpoints import save_checkpoint
from agnet.training.runs.hub import public_config
from agnet.training.runs.model_card import CARD, MARK, card_text, read_card_facts, write_card

pytestmark = pytest.mark.usefixtures("small_mobilenet")

PLAIN = PlainSettings(classes=3, backbone="mobilenet-v3-small")
#: As agnet evaluate writes them, of 12 images of two classes, with numbers that nothing could have computed.
METRICS = {
    "split": "test",
    "epoch": 4,
    "images_seen_in_training": 1,
    "images": 12,
    "top1": 0.58333,
    "top5": 1.0,
    "mean_average_precision": 0.71,
    "mean_class_accuracy": 0.6,
    "calibration_error": 0.125,
    "negative_log_likelihood": 0.987,
    "intervals": {"top1": {"low": 0.3195, "high": 0.8067}, "negative_log_likelihood": {"low": 0.5, "high": 1.5}},
    "class_images": {"ant": 4, "bee": 8, "côté": 0},
    "class_accuracy": {"ant": 0.75, "bee": 0.5, "côté": None},
    "class_intervals": {"ant": {"low": 0.301, "high": 0.954}, "bee": None, "côté": None},
    "confusion": [[3, 1, 0], [4, 4, 0], [0, 0, 0]],
    "miscalibration": {"overconfidence": 0.1, "text": "over-confident by 10.0 points (95% 2.0 to 18.0)"},
    "coverage": [
        {"threshold": 0.9, "images": 6, "coverage": 0.5, "accuracy": 1.0, "interval": {"low": 0.61, "high": 1.0}},
        {"threshold": 0.3, "images": 12, "coverage": 1.0, "accuracy": 0.58333, "interval": {"low": 0.3, "high": 0.8}},
    ],
}


@pytest.fixture
def run(tmp_path, untrained):
    """A run of three epochs on a folder "insects", which was not evaluated; its network is that of epoch 4."""
    run = write_run(tmp_path / "run", predictions_of())
    save_checkpoint(run / "best.safetensors", untrained(PLAIN))
    return run


def evaluated(run, **changes):
    (run / "metrics-test.json").write_text(json.dumps(METRICS | changes), encoding="utf-8")
    return run


def card_of(run):
    """A card as its metadata and its text."""
    _, metadata, text = write_card(run).read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_a_card_says_what_the_files_say(run):
    metadata, text = card_of(evaluated(run))
    assert metadata["library_name"] == "agnet" and metadata["pipeline_tag"] == "image-classification"
    assert "license" not in metadata and "The licence of the weights is not stated." in text
    for said in (
        "plain backbone, mobilenet-v3-small: 3 classes of insects",
        "For **58.33%** of 12 test images, the answer is right (95% interval over these images: 31.95 to 80.67%)",
        "ant, bee, côté",
        "| images | 9 train, 3 val, 12 test |",
        "1 of the photographs of test (12 images) has the content of one that was used in training",
        "started from the weights `imagenet`; seed 0",
        "3 of 4 epochs in 2.0 minutes; epoch 3 was kept, the best by validation loss.",
        "agnet train --recipe modern --root insects",
        "| negative log-likelihood | 0.987 | 0.500 to 1.500 |",
        "| mAP | 71.00% |  |",
        "| bee | 8 | 50.0% |  |\n| ant | 4 | 75.0% | 30.1 to 95.4% |",
        "Most frequent confusions: bee taken for ant (4 of 8), ant taken for bee (1 of 4).",
        "over-confident by 10.0 points (95% 2.0 to 18.0)",
        "| the surest 50% | 0.90 | 100.0% | 61.0 to 100.0% |",
        "known to about ±24.4 points",
        "The backbone was not trained",
        "Seed 0 was not trained to the end: 3 of 4 epochs.",
        "| hardware | unknown |",
        "agnet predict --run run photo.jpg",
    ):
        assert said in text, said


def test_the_hub_reads_the_metadata(run):
    """By the hub's own package, which is not ours."""
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(card_text(read_card_facts(evaluated(run), licence="mit")))
    found = {(one.dataset_name, one.dataset_split, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert card.data.license == "mit" and card.data.model_name == "run"
    assert found["insects", "test", "accuracy"] == 0.58333
    assert found["insects", "test", "negative_log_likelihood"] == 0.987
    assert len(found) == 6 and card.content.splitlines()[0] == "---"


def test_a_card_of_videos_and_one_of_a_search(run, untrained):
    save_checkpoint(run / "best.safetensors", replace(untrained(PLAIN), sampling=Sampling(8)))
    clips = {"clips": 24, "videos": 12, "clip_accuracy": 0.5, "frame_accuracy": None, "intervals": {}}
    metadata, text = card_of(evaluated(run, clips=clips))
    assert metadata["pipeline_tag"] == "video-classification" and "agnet predict --run run video.mp4" in text
    told = (
        "of 12 test videos",
        "8 RGB frames (segments) of a video",
        "| clip accuracy | 50.00% |",
        "1 of the videos of test",
    )
    assert all(said in text for said in told)
    assert "frame accuracy" not in text
    (run / "metrics-test.json").unlink()
    found = {"epoch": 4, "queries": 3, "map": 0.4, "cmc1": 0.3333, "images_seen_in_training": None}
    (run / "metrics-query.json").write_text(json.dumps(found))
    metadata, text = card_of(run)
    assert metadata["pipeline_tag"] == "image-feature-extraction"
    assert "For **33.33%** of 3 queries, the nearest image shows the same person." in text
    assert "It is unknown whether some photographs of query were used in training." in text


def test_what_is_not_known_is_said_to_be(run, tmp_path):
    metadata, text = card_of(run)
    assert "model-index" not in metadata
    assert "has not been measured on images that are new to it" in text and "Calibration" not in text
    for line in (run / "config.json", run / "log.jsonl"):
        line.unlink()
    _, text = card_of(run)
    for said in ("The data that this network was trained on is unknown", "How it was trained is unknown."):
        assert said in text
    assert "| unknown |" not in text and "None" not in text.replace("None yet", "")


def test_results_of_an_earlier_network_are_not_told(run):
    assert "58.33%" not in card_of(evaluated(run, epoch=3))[1]
    assert "58.33%" in card_of(evaluated(run, epoch=4))[1]


def test_neither_card_nor_configuration_has_a_path_of_the_machine(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["boxes"] |= {"file_relative_to_run": "../../secret/boxes.h5", "root_relative_to_run": "../../secret/insects"}
    config["command"]["options"] |= {"root": "/home/someone/insects", "config": str(tmp_path / "mine.yaml")}
    config["title"] = "insects of /home/someone/photographs/2026"
    (run / "config.json").write_text(json.dumps(config))
    _, text = card_of(evaluated(run))
    told = text + json.dumps(public_config(run / "best.safetensors"))
    assert "insects" in told and "mine.yaml" in told
    for private in ("someone", "secret", str(tmp_path), "..", str(Path.home())):
        assert private not in told, private


def test_names_are_text_and_never_markup(run):
    markdown = pytest.importorskip("markdown")
    names = {"images": [4, 8], "accuracy": [0.75, 0.5]}
    evaluated(
        run,
        class_images=dict(zip([HOSTILE, "a|b_c_d*e*"], names["images"], strict=True)),
        class_accuracy=dict(zip([HOSTILE, "a|b_c_d*e*"], names["accuracy"], strict=True)),
        class_intervals={},
    )
    html = markdown.markdown(card_of(run)[1], extensions=["tables"])
    assert "<script>" not in html and "&lt;script" in html


def test_a_persons_card_is_kept(run):
    card = write_card(run)
    own = card.read_text(encoding="utf-8").replace(MARK, "My own words.")
    card.write_text(own, encoding="utf-8")
    assert write_card(evaluated(run)) is None
    assert (run / CARD).read_text(encoding="utf-8") == own


def test_a_damaged_run_is_told_in_one_line(run):
    evaluated(run, coverage=7)
    with pytest.raises(CheckpointError, match=r"^no model card can be written of run: .*unexpected entry"):
        write_card(run)


@pytest.mark.parametrize(
    ("views", "told"),
    [
        (Views((32, 64)), "an RGB image, resized to 32x32 and to 64x64 pixels (height x width, not cropped); the log"),
        (
            Views(),
            "resized to 256x256 pixels (height x width, not cropped), of which it sees the four corners and the ",
        ),
    ],
)
def test_the_input_is_that_of_all_views(run, untrained, views, told):
    save_checkpoint(run / "best.safetensors", replace(untrained(PLAIN), views=views))
    assert told in card_text(read_card_facts(run))
