"""Networks on the Hugging Face hub, against a small server with the hub's routes."""

import errno
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, serve

import agnet as package
from agnet.data.errors import CheckpointError, ConfigurationError, DownloadError
from agnet.training.models.registry import ModelSettings
from agnet.training.models.settings import PlainSettings
from agnet.training.runs.checkpoints import load_checkpoint, save_checkpoint
from agnet.training.runs.folder import display_name
from agnet.training.runs.hub import HubName, fetch, to_push

pytest.importorskip("huggingface_hub")
pytestmark = [
    pytest.mark.usefixtures("small_mobilenet", "one_thread"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's own, of uploads over LFS
]

SETTINGS = ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small", units=4)
SECRETS = ("predictions-test.csv", "embeddings-test.safetensors", "log.jsonl", "curves.png", "last.safetensors")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A running hub and an empty cache; whoever runs the tests may be logged in elsewhere."""
    from huggingface_hub import constants

    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files go over LFS, which the server has
    with serve() as hub:
        ask(monkeypatch, hub.url)
        yield hub


def ask(monkeypatch, url):
    """Ask the hub at another address. The package reads HF_ENDPOINT once, when it is imported."""
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + template)


@pytest.fixture
def run(tmp_path, untrained):
    """A run with a network, the record of its images, its metrics, and files that are nobody else's business."""
    run = tmp_path / "someone" / "run"
    run.mkdir(parents=True)
    save_checkpoint(run / "best.safetensors", untrained(SETTINGS))
    config = {
        "title": "",
        "model": {"model": "agnet"},
        "recipe": {"epochs": 5},
        "run": {"seed": 3},
        "boxes": {"dataset": "folder", "title": "insects", "file_relative_to_run": "../secret/boxes.h5"},
        "versions": {},
        "command": {"recipe": "modern", "options": {"boxes": str(run / "boxes.h5"), "epochs": 5}},
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "metrics-test.json").write_text(
        json.dumps({"epoch": 4, "images": 8, "top1": 0.625, "boxes": str(run / "boxes.h5")})
    )
    (run / "metrics-val.json").write_text(json.dumps({"epoch": 3, "images": 8, "top1": 1.0}))  # of an earlier network
    (run / "seen.txt").write_text("train 0123456789abcdef\n")
    for name in SECRETS:
        (run / name).write_text(json.dumps({"epoch": 4, "seconds": 9.0, "best": True, "of": str(tmp_path)}) + "\n")
    return run


@pytest.fixture
def photograph(folder):
    return next(folder.rglob("*.png"))


def latest(hub, name="me/net", branch="main"):
    """The files that agnet wrote."""
    files = hub.repositories[name].at(branch)[1]
    return {file: content for file, content in files.items() if file != ".gitattributes"}


def test_what_is_pushed_is_told_before_and_has_no_private_file_or_path(agnet, hub, run, tmp_path):
    files = ["model.safetensors", "config.json", "README.md", "metrics-test.json"]
    told = agnet("push", "--run", run, "me/net", "--dry-run", "--license", "mit")
    assert [line.split()[0] for line in told.stdout.splitlines()[1:]] == files
    assert not hub.asked  # it asks nothing
    told = agnet("push", "--run", run, "me/net", "--license", "mit", "--private")
    assert told.stdout.strip() == f"{hub.url}/me/net"
    assert [line.split()[0] for line in told.stderr.splitlines()[1:5]] == files
    assert set(latest(hub)) == set(files) and hub.repositories["me/net"].private
    assert latest(hub)["model.safetensors"] == (run / "best.safetensors").read_bytes()
    for name, content in latest(hub).items():
        assert str(tmp_path).encode() not in content and b"secret" not in content, name
    card = latest(hub)["README.md"].decode()
    assert "\nlicense: mit\n" in card and "agnet predict --run hf://me/net photo.jpg" in card and "62.50%" in card
    assert "\n# net\n" in card and "1 of 5 epochs in 9.0 seconds" in card


def test_weights_go_over_lfs_and_a_refused_upload_is_told_in_one_line(agnet, hub, run):
    hub.full = True
    told = agnet("push", "--run", run, "me/net", code=1).stderr
    assert "does not take me/net: Bad request: not stored" in told and "Traceback" not in told
    assert not latest(hub)
    hub.full = False
    agnet("push", "--run", run, "me/net")
    assert [*hub.stored.values()] == [(run / "best.safetensors").read_bytes()]
    assert "PUT /lfs/" in "".join(hub.asked)
    puts = len(hub.asked)
    agnet("push", "--run", run, "me/other")
    assert "PUT /lfs/" not in "".join(hub.asked[puts:])  # the hub has them


def test_a_second_push_takes_away_what_was_of_another_network(agnet, hub, run):
    agnet("push", "--run", run, "me/net", "--seen")
    hub.repositories["me/net"].commit({"notes.txt": b"by hand"})
    (run / "metrics-test.json").unlink()
    agnet("push", "--run", run, "me/net")
    assert set(latest(hub)) == {"model.safetensors", "config.json", "README.md", "notes.txt"}


def test_a_push_over_something_else_is_refused_unless_it_is_forced(agnet, hub, run, untrained):
    hub.add("me/vit", config_json=b'{"model_type": "vit"}', pytorch_model_bin=b"weights")
    hub.add("me/fresh", README_md=b"# Soon", LICENSE_txt=b"MIT")
    agnet("push", "--run", run, "me/fresh")
    agnet("push", "--run", run, "me/net")
    (run / "best.safetensors").unlink()
    save_checkpoint(run / "best.safetensors", replace(untrained(SETTINGS), classes=("cat", "cow", "dog")))
    held = {
        "me/vit": "something else than a network of agnet's (config.json, pytorch_model.bin)",
        "me/vit@v2": "something else than a network of agnet's (config.json, pytorch_model.bin)",
        "me/net": "a network with other classes",
    }
    for name, what in held.items():
        before = dict(hub.repositories[name.partition("@")[0]].branches)
        told = agnet("push", "--run", run, name, code=1).stderr.splitlines()[-1]
        assert told.startswith(f"Error: {name} holds {what}: name another repository, or write into it with --force")
        assert hub.repositories[name.partition("@")[0]].branches == before
    save_checkpoint(run / "best.safetensors", untrained(replace(SETTINGS, units=5)))
    told = agnet("push", "--run", run, "me/net", code=1).stderr
    assert "me/net holds another network (other model, backbone or settings)" in told
    agnet("push", "--run", run, "me/net", "--force")
    agnet("push", "--run", run, "me/vit", "--force")
    assert {"model.safetensors", "pytorch_model.bin"} < set(latest(hub, "me/vit"))


def test_a_second_push_keeps_the_licence_of_the_card(agnet, hub, run):
    agnet("push", "--run", run, "me/net", "--license", "mit")
    agnet("push", "--run", run, "me/net")
    assert "\nlicense: mit\n" in latest(hub)["README.md"].decode()
    by_hand = latest(hub)["README.md"].replace(b"license: mit", b"license: apache-2.0")
    hub.repositories["me/net"].commit({"README.md": by_hand})
    agnet("push", "--run", run, "me/net@v2")  # a new branch, of which the card is main's
    assert "\nlicense: apache-2.0\n" in latest(hub, branch="v2")["README.md"].decode()
    assert json.loads(latest(hub, branch="v2")["config.json"])["licence"] == "apache-2.0"
    agnet("push", "--run", run, "me/net@v2", "--license", "mit")
    assert "\nlicense: mit\n" in latest(hub, branch="v2")["README.md"].decode()


def test_a_damaged_download_is_told_and_not_kept(agnet, hub, run, tmp_path):
    agnet("push", "--run", run, "me/net")
    hub.damages = True
    told = agnet("pull", "me/net", "--run", tmp_path / "pulled", code=1).stderr.splitlines()[-1]
    assert told == (
        "Error: me/net: its model.safetensors was damaged on the way (its SHA-256 is not the hub's): try again"
    )
    assert not (tmp_path / "pulled").exists()
    hub.damages = False
    agnet("pull", "me/net", "--run", tmp_path / "pulled")
    assert (tmp_path / "pulled" / "best.safetensors").read_bytes() == (run / "best.safetensors").read_bytes()


def test_a_branch_is_made_and_read(agnet, hub, run):
    agnet("push", "--run", run, "me/net")
    for _ in range(2):
        (run / "metrics-test.json").unlink(missing_ok=True)
        agnet("push", "--run", run, "me/net@v2")
    assert "metrics-test.json" in latest(hub) and "metrics-test.json" not in latest(hub, branch="v2")
    assert fetch(HubName.parse("me/net@v2")).name == hub.repositories["me/net"].branches["v2"]


def test_a_network_on_the_hub_predicts_as_the_run_and_is_downloaded_once(agnet, hub, run, photograph, monkeypatch):
    agnet("push", "--run", run, "me/net")
    assert display_name(fetch(HubName.parse("me/net"))) == "me/net"  # for pictures; the folder's is the commit's
    here = agnet("predict", "--run", run, photograph, "--jobs", 0, "--json").stdout
    assert agnet("predict", "--run", "hf://me/net", photograph, "--jobs", 0, "--json").stdout == here
    predicted = package.load("hf://me/net").predict(photograph)
    assert predicted.label == json.loads(here)["label"]
    assert hub.downloads("model.safetensors") == hub.downloads("config.json") == 1
    # Its card's commands, as they are printed.
    monkeypatch.chdir(photograph.parent)
    (photograph.parent / "photo.jpg").write_bytes(photograph.read_bytes())
    card = latest(hub)["README.md"].decode()
    (told,) = re.findall(r"```bash\nagnet (predict .*)\n```", card)
    assert predicted.label in agnet(*shlex.split(told), "--jobs", 0).stdout
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    names = {}
    exec(code, names)
    assert type(names["network"]) is package.AGNet and names["predictor"].classes == names["network"].header.classes
    hub.down = True  # from here on, the cache has to do
    assert agnet("predict", "--run", "hf://me/net", photograph, "--jobs", 0, "--json").stdout == here
    assert hub.downloads("model.safetensors") == 1


def test_a_persons_own_card_is_pushed_as_it_is_unless_it_names_a_private_place(agnet, hub, run, tmp_path):
    boxes = tmp_path / "my secret photos" / "boxes.h5"  # a path that no pattern finds whole
    boxes.parent.mkdir()
    boxes.touch()
    config = json.loads((run / "config.json").read_text())
    config["boxes"]["file_relative_to_run"] = os.path.relpath(boxes, run)
    (run / "config.json").write_text(json.dumps(config))
    card = run / "README.md"
    card.write_text(
        "---\ntags: [mine]\n---\n# Mine\n\nBy /usr/bin/python, see https://a.b/home/page\n", encoding="utf-8"
    )
    agnet("push", "--run", run, "me/net")
    assert latest(hub)["README.md"] == card.read_bytes()
    for place in (run, run.parent, boxes, tmp_path, Path.home(), "/home/somebody/photos"):
        card.write_text(f"---\ntags: [mine]\n---\nIn `{place}`.\n", encoding="utf-8")
        told = agnet("push", "--run", run, "me/net", "--dry-run", code=1).stderr
        assert told == f"Error: {card} names a private place, {place}: take it out, and push again\n"
    card.write_bytes("café".encode("latin-1"))
    assert "README.md cannot be read as UTF-8 text" in agnet("push", "--run", run, "me/net", code=1).stderr


def test_a_revision_stays_what_it_was(agnet, hub, run, untrained):
    agnet("push", "--run", run, "me/net")
    first, _ = hub.repositories["me/net"].at("main")
    save_checkpoint(run / "best.safetensors", untrained(PlainSettings(classes=3, backbone="mobilenet-v3-small")))
    agnet("push", "--run", run, "me/net", "--force")
    assert load_checkpoint(fetch(HubName.parse(f"hf://me/net@{first}"))).settings.model == "agnet"
    assert load_checkpoint(fetch(HubName.parse("me/net"))).settings.model == "plain"


def test_a_pulled_run_is_a_run_with_its_origin(agnet, hub, run, tmp_path):
    agnet("push", "--run", run, "me/net", "--seen")
    commit, files = hub.repositories["me/net"].branches["main"], latest(hub)
    told = agnet("pull", "me/net", "--run", tmp_path / "new" / "run")
    pulled = tmp_path / "new" / "run"
    assert told.stdout.strip() == str(pulled)
    assert {path.name for path in pulled.iterdir()} == {*files, "best.safetensors"} - {"model.safetensors"}
    assert (pulled / "best.safetensors").read_bytes() == files["model.safetensors"]
    assert (pulled / "seen.txt").read_bytes() == (run / "seen.txt").read_bytes()
    assert json.loads((pulled / "config.json").read_text())["pulled"] == {"repository": "me/net", "revision": commit}
    assert "finished" in agnet("runs", tmp_path / "new").stdout
    again = agnet("pull", "me/net", "--run", pulled, code=1).stderr
    assert again == f"Error: {pulled} already has a config.json; name another folder with --run\n"
    hub.down = True
    agnet("pull", "me/net", "--run", tmp_path / "cached")
    for file in pulled.iterdir():
        assert (tmp_path / "cached" / file.name).read_bytes() == file.read_bytes()


def test_a_pulled_run_is_pushed_again_with_all_that_its_card_said(agnet, hub, run, tmp_path):
    agnet("push", "--run", run, "me/net", "--license", "mit")
    agnet("pull", "me/net/", "--run", tmp_path / "pulled")
    agnet("push", "--run", tmp_path / "pulled", "me/again")
    card, again = (latest(hub, name)["README.md"].decode() for name in ("me/net", "me/again"))
    commit = hub.repositories["me/net"].branches["main"]
    origin = f"A copy of me/net on the Hugging Face hub, revision {commit}.\n\n"
    assert origin in again
    assert card.replace("me/net", "me/again").replace("# net", "# again").replace("name: net", "name: again") == (
        again.replace(origin, "")
    )


def test_an_interrupted_pull_leaves_nothing(agnet, hub, run, tmp_path, monkeypatch):
    agnet("push", "--run", run, "me/net")

    def copy(source, target):
        if source.name == "README.md":  # the weights are there already
            raise KeyboardInterrupt
        target.write_bytes(source.read_bytes())

    with monkeypatch.context() as patched:
        patched.setattr("agnet.training.runs.hub.shutil.copyfile", copy)
        agnet("pull", "me/net", "--run", tmp_path / "pulled", code=130)
    assert not [*(tmp_path / "pulled").iterdir()]
    agnet("pull", "me/net", "--run", tmp_path / "pulled")
    (tmp_path / "file").touch()
    told = agnet("pull", "me/net", "--run", tmp_path / "file" / "pulled", code=1).stderr
    assert told == f"Error: cannot write to {tmp_path / 'file' / 'pulled'}: Not a directory\n"


def test_a_stranger_cannot_point_to_files_of_this_machine(agnet, hub, run, tmp_path):
    agnet("push", "--run", run, "me/net")
    config = json.loads(latest(hub)["config.json"])
    config["boxes"] |= {"file_relative_to_run": "../secret.h5", "root_relative_to_run": ".."}
    config["epochs"] = [7, {"epoch": "<b>", "seconds": 1.0}]
    hub.repositories["me/net"].commit({"config.json": json.dumps(config).encode()})
    agnet("pull", "me/net", "--run", tmp_path / "pulled")
    assert "relative_to_run" not in (tmp_path / "pulled" / "config.json").read_text()
    assert "<b>" not in to_push(tmp_path / "pulled", HubName("me/x"))["README.md"].decode()


@pytest.mark.parametrize(("file", "kind"), [("config.json", "TEXT"), ("model.safetensors", "WEIGHTS")])
def test_a_file_that_is_too_large_is_not_downloaded(agnet, hub, run, monkeypatch, file, kind):
    agnet("push", "--run", run, "me/net")
    monkeypatch.setattr(f"agnet.training.runs.hub._LARGEST_{kind}", 99)
    told = agnet("predict", "--run", "hf://me/net", "photo.jpg", code=1).stderr
    assert told.startswith(f"Error: me/net: its {file} has ") and "more than the 99 bytes that agnet downloads" in told
    assert not hub.downloads(file)


def test_a_full_disk_is_told_with_the_cache(agnet, hub, run, monkeypatch):
    def full(*arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    agnet("push", "--run", run, "me/net")
    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    told = agnet("predict", "--run", "hf://me/net", "photo.jpg", code=1).stderr
    assert told.endswith("/cache: No space left on device; the hub's cache is set by HF_HOME\n")


FOREIGN = {
    "of-others": ({"config_json": b'{"model_type": "vit"}'}, "is no network of agnet's but of vit"),
    "without": ({"README_md": b"# Hello"}, "has no config.json: it is no network of agnet's"),
    "damaged": ({"config_json": b"{"}, "its config.json is damaged"),
    "a-list": ({"config_json": b"[]"}, "is no network of agnet's; agnet push makes repositories that agnet reads"),
    "newer": (
        {"config_json": b'{"library_name": "agnet", "model": {"model": "agnet-9"}}'},
        "does not know (unknown model 'agnet-9'",
    ),
    "hostile": (
        {"config_json": b'{"library_name": "agnet", "model": {"\\u001b[2J": 1}}'},
        "does not know (unknown model settings \N{REPLACEMENT CHARACTER}[2J); a newer agnet",
    ),
    "later": (
        {"config_json": b'{"library_name": "agnet", "format_version": 9, "model": {"classes": 3}}'},
        "does not know (of format version 9); a newer agnet may read it",
    ),
    "broken": (
        {"config_json": b'{"library_name": "agnet", "model": {"classes": 3}}', "model_safetensors": b"\0" * 64},
        "broken: its model.safetensors is not a safetensors file, or damaged",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_repositories_are_told_in_one_line(agnet, hub, name):
    files, said = FOREIGN[name]
    hub.add(f"me/{name}", **files)
    told = agnet("predict", "--run", f"hf://me/{name}", "photo.jpg", code=1).stderr
    assert told.startswith(f"Error: me/{name}") and said in told and told.count("\n") == 1
    assert not hub.downloads("model.safetensors") or name == "broken"


def test_a_pickle_is_not_even_downloaded(agnet, hub):
    config = json.dumps({"library_name": "agnet", "model": {"classes": 3}}).encode()
    hub.add("me/net", config_json=config, pytorch_model_bin=pickle.dumps(print))
    told = agnet("predict", "--run", "hf://me/net", "photo.jpg", code=1).stderr
    assert told == "Error: me/net has no model.safetensors: weights in other formats than safetensors are not loaded\n"
    assert not any("pytorch_model" in line for line in hub.asked)


def test_names_and_places_that_are_not_there_are_told_in_one_line(agnet, hub, run, monkeypatch):
    hub.add("me/secret", private=True, config_json=b"{}")
    hub.add("me/asking", config_json=b"{}").gated = True

    def told(*words):
        line = agnet(*words, code=1).stderr.splitlines()[-1]
        assert line.startswith("Error: ")
        return line

    assert "there is no me/none on http://127.0.0.1" in told("pull", "me/none")
    assert "me/asking asks for a consent: give it on http://127.0.0.1" in told("pull", "me/asking")
    assert "me/secret has no v9: name a branch, tag or commit" in told("pull", "me/secret@v9")
    assert "does not let you write to you/net: log in with hf auth login" in told("push", "--run", run, "you/net")
    assert 'does not take me/net: Invalid metadata in README.md. - "license" must be one of' in told(
        "push", "--run", run, "me/net", "--license", "mine"
    )
    for name in ("hf:/me/none", "hf://me/none/"):
        assert "there is no me/none on" in told("predict", "--run", name, "photo.jpg")
    assert told("pull", "net") == ("Error: 'net' does not name a network on the hub: wanted OWNER/NAME[@REVISION]")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN_PATH", os.devnull)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", os.devnull)
    assert "no me/secret on http" in told("pull", "me/secret") and "HF_TOKEN" in told("pull", "me/secret")
    assert "does not let you write to me/net: log in" in told("push", "--run", run, "me/net")
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    assert "does not know your token: log in" in told("pull", "me/secret")
    assert "does not let you write to me/net: log in" in told("push", "--run", run, "me/net")


def test_without_a_network_it_is_told_at_once_and_the_cache_is_used(agnet, hub, run, monkeypatch):
    agnet("push", "--run", run, "me/net")
    cached = fetch(HubName.parse("me/net"))
    # Between attempts huggingface_hub would wait, 23 seconds in all, and print each.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: pytest.fail(f"waits {seconds} s"))
    hub.login = True
    assert fetch(HubName.parse("me/net")) == cached
    for words in (["predict", "--run", "hf://me/none", "photo.jpg"], ["pull", "me/none"]):
        told = agnet(*words, code=1).stderr
        assert told == f"Error: {hub.url} does not answer as a hub does: check the connection, or HF_ENDPOINT\n"
    ask(monkeypatch, "http://127.0.0.1:9")  # nobody listens there
    assert fetch(HubName.parse("me/net")) == cached
    for words in (["predict", "--run", "hf://me/none", "photo.jpg"], ["pull", "me/none"]):
        told = agnet(*words, code=1).stderr
        assert told.startswith("Error: http://127.0.0.1:9 cannot be reached for me/none (")
        assert told.endswith("): check the connection and try again; the hub's cache does not have it\n")
        assert told.count("\n") == 1
    assert "cannot be reached" in agnet("push", "--run", run, "me/net", code=1).stderr
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch(HubName.parse("me/net")) == cached
    assert "HF_HUB_OFFLINE forbids to ask the hub for me/none" in agnet("pull", "me/none", code=1).stderr
    assert "HF_HUB_OFFLINE forbids to ask the hub for me/net" in agnet("push", "--run", run, "me/net", code=1).stderr


def test_without_the_package_its_installation_is_told(agnet, run, monkeypatch):
    monkeypatch.setattr("agnet.training.runs.hub.find_spec", lambda name: None)
    told = agnet("predict", "--run", "hf://me/net", "photo.jpg", code=1).stderr
    assert "need the package huggingface_hub: " in told and 'install "huggingface-hub>=1' in told


def test_what_writes_into_a_run_names_the_command_that_copies_it(agnet, hub, run):
    agnet("push", "--run", run, "me/net")
    for words in (
        "evaluate",
        "report",
        "labels",
        "train",
        "compare",
        "export",
        "explain --split test",
        "figure regions",
    ):
        named = ["hf://me/net"] if words == "compare" else ["--run", "hf://me/net"]
        told = agnet(*words.split(), *named, code=2).stderr
        assert "hf://me/net is on the hub, and this needs the folder of a run: agnet pull me/net --run FOLDER" in told


def test_a_class_reads_and_writes_its_networks(hub, tmp_path, untrained, run):
    network = untrained(SETTINGS).model
    with pytest.raises(ConfigurationError, match="name its settings and classes"):
        network.save_pretrained(tmp_path / "net")
    saved = network.save_pretrained(tmp_path / "net", settings=SETTINGS, classes=["ant", "bee", "côté"])
    assert {path.name for path in saved.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert "The data that this network was trained on is unknown" in (saved / "README.md").read_text(encoding="utf-8")
    loaded = package.AGNet.from_pretrained(saved)
    assert loaded.push_to_hub("me/again", licence="mit") == f"{hub.url}/me/again"
    again = package.AGNet.from_pretrained("me/again")
    assert again.header.classes == ("ant", "bee", "côté") and not again.training
    images, regions = torch.zeros(1, 3, 224, 224), torch.tensor([[[0.1, 0.2, 0.8, 0.9]] * 6])
    with torch.no_grad():
        assert torch.equal(again(images, regions).logits, network(images, regions).logits)
    assert type(package.AGNet.from_pretrained(run)) is package.AGNet


def test_another_family_and_other_folders_are_refused(hub, tmp_path, untrained):
    settings = PlainSettings(classes=3, backbone="mobilenet-v3-small")
    plain = untrained(settings).model.save_pretrained(tmp_path / "net", settings=settings, classes=["a", "b", "c"])
    with pytest.raises(CheckpointError, match=r"holds a network of Plain\w*, not of AGNet; agnet\.load reads any"):
        package.AGNet.from_pretrained(plain)
    with pytest.raises(ConfigurationError, match="is a folder, which has no revision 'v1'"):
        package.AGNet.from_pretrained(plain, revision="v1")
    with pytest.raises(DownloadError, match="there is no me/none on"):
        package.AGNet.from_pretrained("me/none")


def test_the_environment_of_the_hub_is_followed(hub, run, agnet, tmp_path):
    """In a process of its own, as a user has it: HF_ENDPOINT and HF_HOME are read when the package is imported."""
    agnet("push", "--run", run, "me/net")
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
    command = [sys.executable, "-m", "agnet", "pull", "me/net"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(Path("runs", "net"))
    assert (tmp_path / "home" / "hub" / "models--me--net").is_dir()
