"""Families of models: their settings, and those as files have them."""

import json
from dataclasses import FrozenInstanceError, fields

import pytest

from agnet.data.fields import is_rule
from agnet.training.models.contract import check_settings
from agnet.training.models.registry import MODELS, ModelSettings, comparable, needs_of, record_of, settings_of
from agnet.training.models.settings import AGNetSettings, BCNNSettings, PlainSettings, SRBNSettings

# What version 1 of the checkpoint's format has of a plain network: AG-Net's fields, too.
OLD_PLAIN = {
    **{"classes": 3, "regions": 6, "model": "plain", "backbone": "vgg16", "units": 32, "se_ratio": 16},
    **{"spectral_norm": False, "attention_softmax": False, "use_regions": True, "self_attention": True},
    **{"inter_attention": True, "fusion": "learned", "se": "slot", "pooling": "align", "pooling_samples": 1},
    **{"shortcut": False, "stages": 1},
}


@pytest.mark.parametrize(
    "settings", [AGNetSettings(4, 7, "vgg16", se="none", stages=2), PlainSettings(4, "densenet121")]
)
def test_a_record_and_back_gives_the_settings(settings):
    record = json.loads(json.dumps(record_of(settings)))
    assert settings_of(record) == settings
    added = {"neck", "temporal", "region_channels", "lstm_units"}
    assert set(record) == {*OLD_PLAIN, *added}  # whoever reads these files finds what was always there


def test_records_from_before_families_had_settings_of_their_own_are_read():
    assert settings_of(OLD_PLAIN) == PlainSettings(3, "vgg16")
    assert settings_of(OLD_PLAIN | {"model": "agnet", "units": 5}) == AGNetSettings(3, 6, "vgg16", units=5)
    older = {name: OLD_PLAIN[name] for name in ("classes", "regions", "model", "backbone")}
    assert settings_of(older | {"model": "agnet"}) == AGNetSettings(3, 6, "vgg16")
    assert ModelSettings(3, regions=6, model="plain", backbone="vgg16", units=9) == PlainSettings(3, "vgg16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, "unknown model settings depth"),
        ({"model": "agnett"}, "unknown model 'agnett'; known: agnet, plain, srbn, bcnn, alstm, conv-alstm"),
        ({"model": ["agnet"]}, "model is"),
        ({"units": "32"}, "units is '32': it must be of type int"),
        ({"classes": True}, "classes is True: it must be of type int"),
    ],
)
def test_records_of_no_network_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        settings_of(OLD_PLAIN | change)


def test_what_a_family_does_not_have_is_no_difference_between_its_runs():
    assert comparable(OLD_PLAIN) == comparable(OLD_PLAIN | {"regions": 36, "units": 5})
    assert comparable({"model": "agnet", "units": 5})["se"] == AGNetSettings.se
    assert comparable({"model": "of tomorrow", "depth": 3}) == {"model": "of tomorrow", "depth": 3}


@pytest.mark.parametrize(
    "settings",
    [
        SRBNSettings(4, "vgg16", attention="recurrent", coverage=0.5, directions=1, stable=True),
        BCNNSettings(4, bilinear="compact", sketch=64, grid=7),
    ],
)
def test_a_record_of_two_streams_has_its_own_fields_alone(settings):
    record = json.loads(json.dumps(record_of(settings)))
    assert settings_of(record) == settings
    assert set(record) == {"model", *(one.name for one in fields(settings))}
    assert needs_of(settings).regions == 0
    with pytest.raises(ValueError, match="unknown model settings use_regions"):
        settings_of(record | {"use_regions": True})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directions": 2}, "directions: wanted 1 or 4, got 2"),
        ({"attention": "dynamic"}, "attention: wanted static or recurrent, got 'dynamic'"),
        ({"coverage": -1.0}, "coverage: wanted 0 or above, got -1.0"),
    ],
)
def test_values_that_are_not_allowed_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        check_settings(ModelSettings(3, model="srbn", **change))


def test_a_whole_number_is_a_number():
    record = record_of(SRBNSettings(3, attention="recurrent", coverage=1))
    assert settings_of(record) == SRBNSettings(3, attention="recurrent", coverage=1.0)
    with pytest.raises(ValueError, match="coverage is True: it must be of type float"):
        settings_of(record | {"coverage": True})


def test_every_family_says_what_it_needs_without_being_loaded():
    assert needs_of(AGNetSettings(3, 7)).regions == 7
    assert needs_of(AGNetSettings(3, 7, use_regions=False)).regions == needs_of(PlainSettings(3)).regions == 0


@pytest.mark.parametrize("name", MODELS)
def test_settings_are_frozen_and_every_field_says_what_it_is(name):
    kind = MODELS[name].settings
    assert kind.model == name
    own = [one for one in fields(kind) if one.name != "classes"]
    for one in own:
        wanted, holds = one.metadata["rule"]
        assert one.metadata["about"].endswith(".") and one.metadata["section"] and wanted
        assert holds(one.default)
        if needed := one.metadata["needs"]:
            (other,) = (field for field in own if field.name == needed[0])
            allowed = needed[1] if isinstance(needed[1], tuple) else (needed[1],)
            assert is_rule(needed[1]) or all(map(other.metadata["rule"][1], allowed))  # values that it may have
    with pytest.raises(FrozenInstanceError):
        kind(3).classes = 4
