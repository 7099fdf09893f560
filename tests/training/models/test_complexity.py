import json

import pytest
from click.testing import CliRunner

from agnet.cli import main
from agnet.training.measure.complexity import PAPER, VARIANTS, Cost, costs_text, network_cost, other_costs
from agnet.training.models.registry import ModelSettings

# What torchvision's bodies have fewer or more than Keras', in trainable parameters: ResNet-50's convolutions have no
# biases, Inception-V3's batch norms have scales.
FROM_KERAS = {"resnet50": 26_560, "inception-v3": -17_216, "densenet121": 0, "nasnet-mobile": 0}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backbone", PAPER)
def test_the_twelve_counts_of_table_6(backbone, variant):
    cost = network_cost(ModelSettings(classes=40, backbone=backbone), variant)
    claimed, _, _ = PAPER[backbone][variant]
    assert round((cost.parameters + FROM_KERAS[backbone]) / 1e6, 2) == claimed


def test_arithmetic_is_counted_by_hand():
    """Of the head: projections of the map, region pooling, gates and inter-attention, two a multiply-add."""
    plain, full = (network_cost(ModelSettings(classes=40), variant) for variant in ("baseline", "+Attn"))
    C, N, P, D = 2048, 37, 49, 49 * 2048
    self_attention = P * C * (C + 2 * C // 8) + P * P * (C // 8) + P * P * C
    pooling = N * P * P * C
    gates = 2 * N * C * (C // 16)
    inter = N * D * 65 + N * N * 32 + N * N + N * N + N * D
    head = 2 * (self_attention + pooling + gates + inter) / 1e9
    assert full.gflops - plain.gflops == pytest.approx(head, rel=0.01)
    assert plain.gflops == pytest.approx(8.18, abs=0.1)  # ResNet-50's 4.09 G multiply-adds


def test_the_command_tells_the_same_in_words_and_in_json():
    options = ["complexity", "--backbone", "mobilenet-v3-small", "--classes", "3"]
    told = CliRunner().invoke(main, options)
    assert told.exit_code == 0, told.output
    costs = json.loads(CliRunner().invoke(main, [*options, "--json"]).output)
    assert [cost["variant"] for cost in costs] == list(VARIANTS)
    for cost in costs:
        line = next(line for line in told.output.splitlines() if f" {cost['variant']} " in f" {line} ")
        assert f"{cost['parameters'] / 1e6:.2f}" in line and f"{cost['gflops']:.2f}" in line
        assert cost["paper_gflops"] is None and cost["milliseconds"] is None
    assert "paper" not in told.output


def test_the_papers_claims_stand_beside_the_very_networks_they_are_about():
    told = CliRunner().invoke(main, ["complexity", "--backbone", "resnet50"]).output
    assert "54.76  (54.79)" in told and "9.60  (10.42)" in told and "in brackets: the paper's Table VI" in told
    for other in (["--classes", "10"], ["--region-count", "10"], ["--stages", "2"], ["--backbone", "vgg16"]):
        options = other if "--backbone" in other else ["--backbone", "resnet50", *other]
        assert "(" not in CliRunner().invoke(main, ["complexity", *options]).output


def test_models_of_two_streams_cost_what_their_formulas_say():
    *_, bcnn, srbn = other_costs(200)
    streams = 14_714_688 + 9_220_480
    assert bcnn.backbone == srbn.backbone == "vgg16-conv5 + vgg11-conv5"
    assert (bcnn.parameters, srbn.parameters) == (streams + 512 * 512 * 200 + 200, streams + 6_043_081)
    # Two per multiply-add, at 14 × 14: 30.7 and 15.0 of the streams, then the head's.
    assert bcnn.gflops == pytest.approx(45.7 + 2 * (196 * 512 * 512 + 512 * 512 * 200) / 1e9, abs=0.1)
    assert srbn.gflops - bcnn.gflops == pytest.approx(2.29 - 0.21, abs=0.02)


def test_models_of_clips_cost_a_frame_what_their_formulas_say():
    alstm, conv, *_ = other_costs(51)
    vgg16 = network_cost(ModelSettings(classes=51, backbone="vgg16"), "baseline")
    assert (alstm.parameters, conv.parameters) == (14_714_688 + 2_915_380, 14_714_688 + 7_289_396)
    starts = 2 * 2 * 512 * 512 / 1e9  # once a clip
    assert alstm.gflops - vgg16.gflops - starts == pytest.approx(0.0174, abs=5e-5)
    assert conv.gflops - vgg16.gflops == pytest.approx(0.714, rel=0.01)


def test_other_models_are_listed_unless_backbones_are_chosen(monkeypatch):
    monkeypatch.setattr("agnet.commands.complexity.BACKBONES", ("mobilenet-v3-small",))
    costs = json.loads(CliRunner().invoke(main, ["complexity", "--json"]).output)
    assert [cost["variant"] for cost in costs] == [*VARIANTS, "alstm", "conv-alstm", "bcnn", "srbn"]
    assert "vgg16-conv5 + vgg11-conv5  bcnn" in CliRunner().invoke(main, ["complexity"]).output


def test_latency_is_measured_where_asked():
    options = ["--backbone", "mobilenet-v3-small", "--latency", "--batch-size", "1", "--device", "cpu", "--json"]
    costs = json.loads(CliRunner().invoke(main, ["complexity", *options]).output)
    assert all(cost["milliseconds"] > 0 for cost in costs)
    # Of a plain network: its weights, the pixels, and the largest map beside what it is made of.
    memory = [cost["memory"] for cost in costs]
    weights, pixels, map_ = 4 * costs[0]["parameters"], 3 * 224 * 224, 4 * 16 * 112 * 112
    assert weights + pixels + 2 * map_ < memory[0] < weights + pixels + 5 * map_
    assert memory[0] < memory[1] < memory[2]
    told = costs_text([Cost("one", "baseline", 10, 1.0, 2.0, 300_000_000)])
    assert "images/s      MB" in told and "500.0     300" in told


def test_an_unknown_backbone_is_one_line():
    result = CliRunner().invoke(main, ["complexity", "--backbone", "resnet5000"])
    assert result.exit_code == 1 and "unknown backbone 'resnet5000'" in result.output
