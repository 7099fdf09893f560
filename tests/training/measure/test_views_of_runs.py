"""Runs whose network sees each photograph in several views: trained, measured, compared, predicted and explained."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torchvision.transforms.functional import resize

from agnet.commands.viewing import in_one_word
from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import ConfigurationError
from agnet.data.images import read_image
from agnet.training.answers.predict import with_evidence
from agnet.training.loop.fit import fit
from agnet.training.loop.job import Job
from agnet.training.loop.preflight import check_views
from agnet.training.measure.complexity import run_cost
from agnet.training.measure.predictions import load_predictions
from agnet.training.models.build import build_model
from agnet.training.models.contract import Views, sizes_text
from agnet.training.models.registry import ModelSettings
from agnet.training.models.settings import AGNetSettings, PlainSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs.checkpoints import load_checkpoint
from agnet.training.runs.folder import BEST, read_log, views_of_run
from agnet.training.samples.views import View

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

SMALL = "mobilenet-v3-small"
PLAIN = PlainSettings(3, SMALL)
RECIPE = RECIPES["modern"].override(epochs=1, batch_size=4)
VIEWS = {"sizes": RECIPE.override(sizes="64 96"), "one": RECIPE.override(image_size=96)}


@pytest.fixture(scope="module")
def runs(_original_boxes, _original_folder, one_thread, small_mobilenet, tmp_path_factory):
    """Runs trained at two sizes and at one."""
    place, boxes = tmp_path_factory.mktemp("runs"), read_boxes(_original_boxes)
    for name, recipe in VIEWS.items():
        fit(Job(place / name, boxes, _original_folder, PLAIN, recipe, RunSettings(weights="none", workers=0)))
    return place


def expected(run, names, root, views):
    """Mean log-probabilities ``(n, K)``, normalised, of the run's weights at each size by itself."""
    model = build_model(PLAIN).eval()
    with safe_open(run / BEST, "pt") as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a dict
    found = []
    for name in names:
        image = read_image(root / name)
        large = View.of(image.shape[1::-1], (max(views), max(views))).pixels(image)
        pixels = torch.from_numpy(large).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            seen = [model(resize(pixels, [side, side], antialias=True)).logits.log_softmax(1) for side in views]
        found.append(torch.stack(seen).mean(0).log_softmax(1)[0].numpy())
    return np.stack(found)


def test_a_run_is_measured_in_the_views_it_was_trained_with_or_in_others(runs, _original_folder, agnet):
    asked = {"sizes": ([], (64, 96)), "one": (["--sizes", "64", "96"], (64, 96))}
    for name, (options, views) in asked.items():
        told = agnet("evaluate", "--run", runs / name, "--root", _original_folder, "--split", "val", *options)
        assert "views of 64 + 96 pixels" in told.output
        asks_again = f"next: agnet predict --run {runs / name} --sizes 64 96 " in told.output
        assert asks_again == bool(options)
        part = "-sizes-64-96" if options else ""
        found = load_predictions(runs / name / f"predictions-val{part}.safetensors")
        wanted = expected(runs / name, found.names, _original_folder, views)
        ours = torch.from_numpy(found.logits).log_softmax(1).numpy()
        np.testing.assert_allclose(ours, wanted, atol=1e-5)
        metrics = json.loads((runs / name / f"metrics-val{part}.json").read_text())
        assert metrics["views"] == {"sizes": [64, 96]} and found.views == "64 + 96 pixels"
        assert found.image_size == 96
    assert not (runs / "one" / "metrics-val.json").exists()
    both = agnet("compare", runs / "one", runs / "sizes", "--split", "val", "--sizes", 64, 96).output
    assert f"{runs / 'one'} (64 + 96 pixels)" in both and "views:" not in both
    alone = agnet("compare", runs / "sizes", "--split", "val", "--sizes", 64, 96, code=2).output
    assert "was trained with 64 + 96 pixels: name a run to compare it with" in alone
    missing = agnet("compare", runs / "one", runs / "sizes", "--split", "val", code=1).output
    assert "make them with: agnet evaluate" in missing
    agnet("evaluate", "--run", runs / "one", "--root", _original_folder, "--split", "val")
    assert "views: the photograph in" in agnet("compare", runs / "one", "--sizes", 64, 96, "--split", "val").output


def test_a_run_knows_its_views_and_its_tensors_are_those_of_one_view(runs):
    two, one = (load_checkpoint(runs / name) for name in ("sizes", "one"))
    assert two.views == views_of_run(runs / "sizes") == Views((64, 96)) and two.size_hw == (96, 96)
    assert one.views is views_of_run(runs / "one") is None
    shapes = [{name: value.shape for name, value in found.model.state_dict().items()} for found in (two, one)]
    assert shapes[0] == shapes[1]
    with safe_open(runs / "one" / BEST, "np") as file:
        assert "views" not in json.loads(file.metadata()["agnet"])
    line = read_log(runs / "sizes")[0]
    assert line["train_disagreement"] > 0 and "train_disagreement" not in read_log(runs / "one")[0]


def test_the_arithmetic_of_all_views_counts_and_the_weights_once(runs, tmp_path):
    def cost(**recipe):
        config = json.loads((runs / "one" / "config.json").read_text())
        config["recipe"] |= {"image_size": 0, **recipe}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return run_cost(tmp_path)

    small, large, both = cost(image_size=64), cost(image_size=128), cost(sizes="64 128")
    assert both.gflops == pytest.approx(small.gflops + large.gflops)
    assert both.parameters == small.parameters
    assert cost(image_size=64, crops="five").gflops == pytest.approx(5 * small.gflops)


def test_a_prediction_names_its_views(runs, _original_folder, agnet):
    image = _original_folder / "val" / "bee" / "0.png"
    told = agnet("predict", "--run", runs / "one", "--sizes", 64, 96, image, "--json", "--jobs", 0)
    answer = json.loads(told.stdout)
    assert answer["views"] == {"sizes": [64, 96]}
    (wanted,) = np.exp(expected(runs / "one", ["val/bee/0.png"], _original_folder, (64, 96)))
    assert sorted(answer["probabilities"].values()) == pytest.approx(sorted(wanted), abs=1e-5)
    assert (
        "views of each photograph: five crops"
        in agnet("predict", "--run", runs / "one", "--crops", "five", image).stderr
    )
    assert "views" not in json.loads(agnet("predict", "--run", runs / "one", image, "--json").stdout)
    for options, complaint in (
        (["--sizes", "100"], "wanted different multiples of 32"),
        (["--sizes", "32", "--crops", "five"], "leave one of them out"),
        (["--sizes", "32", "--gallery", _original_folder], "is for classes"),
    ):
        assert complaint in agnet("predict", "--run", runs / "one", image, *options, code=2).output


@pytest.mark.parametrize("views", [Views((32, 96)), Views()])
def test_the_evidence_of_all_views_adds_up_to_the_logit(views):
    torch.manual_seed(0)
    model = build_model(PLAIN).eval()
    model.size_hw, model.views = (84, 84), views
    images = torch.randint(0, 256, (2, 3, 96, 96)).byte()
    output, evidence = with_evidence(model, images)
    logits, winners = output.logits.max(dim=1)
    assert evidence.shape == ((2, 7, 7) if views.sizes else (2, 8, 8))
    torch.testing.assert_close(evidence.sum(dim=(1, 2)) + model.classifier.bias[winners], logits)


def test_the_evidence_of_a_crop_lies_where_the_crop_does():
    """The classifier sees one channel, which is the light of a place; the light is in the lower right corner alone."""
    torch.manual_seed(0)
    model = build_model(PLAIN).eval()
    model.backbone.forward = lambda images: torch.nn.functional.avg_pool2d(images.float(), 12).repeat(1, 192, 1, 1)
    with torch.no_grad():
        model.classifier.weight.fill_(1.0)
    model.size_hw, model.views = (84, 84), Views()
    images = torch.zeros(1, 3, 96, 96)
    images[..., 84:, 84:] = 255
    _, evidence = with_evidence(model, images)
    assert evidence[0, 7, 7] > 0.8 * evidence.sum() > 0
    assert evidence[0, 6:, 6:].sum() == evidence.sum()  # a place of the centre crop lies on four of the map


def test_what_has_no_views_is_refused_in_one_line():
    images, persons, clips = (
        SimpleNamespace(path="boxes.h5", of_clips=clips, is_retrieval=persons)
        for clips, persons in ((False, False), (False, True), (True, False))
    )
    agnet, srbn = AGNetSettings(3, backbone=SMALL), ModelSettings(3, model="srbn")
    check_views(Views((32, 64)), agnet, images)
    check_views(Views(), AGNetSettings(3, backbone=SMALL, use_regions=False), images)
    check_views(None, srbn, clips)
    for views, settings, boxes, complaint in (
        (Views((32, 64)), srbn, images, "--sizes 32 64: the network srbn sees photographs in one view"),
        (Views((32, 64)), AGNetSettings(3, temporal="mean"), images, "in one view"),
        (Views(), agnet, images, "crops would cut the regions of agnet"),
        (Views((32, 64)), PLAIN, clips, "boxes.h5 has clips"),
        (Views((32, 64)), PLAIN, persons, "persons to search for"),
    ):
        with pytest.raises(ConfigurationError, match=complaint):
            check_views(views, settings, boxes)
    for others in ({"sizes": "32"}, {"sizes": "32 40"}, {"sizes": "32 64", "crops": "five"}, {"sizes": (32, 64)}):
        with pytest.raises(ConfigurationError, match="sizes"):
            RECIPE.override(**others)
    with pytest.raises(ConfigurationError, match="'sizes' and 'image_size'"):
        RECIPE.override(sizes="32 64", image_size=96)


def test_numbers_after_the_option_are_one_value():
    words = ["--run", "r", "--sizes", "224", "448", "a.jpg", "7"]
    assert in_one_word(words) == ["--run", "r", "--sizes", "224 448", "a.jpg", "7"]
    assert in_one_word(["5", "--sizes", "224", "--top", "2", "3"]) == ["5", "--sizes", "224", "--top", "2", "3"]
    for typed in (["--sizes=96", "160"], ["--sizes=96,", "160"], ["--sizes", "96,", "160"], ["--sizes", "96", ",160"]):
        option, value = in_one_word(typed)
        assert (option, sizes_text(value)) == ("--sizes", "96 160")
    assert in_one_word(["--sizes=", "96"]) == ["--sizes", "", "96"]  # which is then refused
