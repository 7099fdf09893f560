"""Completion in the shell: what is offered, in a process that loads nothing slow."""

import os
import subprocess
import sys

import pytest
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from agnet.cli import main


def offered(*words):
    """The values that are offered for the last of the words, as the program answers a shell."""
    complete = BashComplete(main, {}, "agnet", "_AGNET_COMPLETE")
    return [(item.type, item.value) for item in complete.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (("tr",), ["train"]),
        (("train", "--backbone", "mob"), ["mobilenet-v3-small"]),
        (("train", "--model", "s"), ["srbn"]),
        (("train", "--recipe", "mo"), ["modern"]),
        (("train", "--device", "c"), ["cpu", "cuda"]),
        (("train", "--log", ""), ["csv", "tensorboard", "wandb", "mlflow", "none"]),
        (("train", "--log", "csv,wandb,"), ["csv,wandb,tensorboard", "csv,wandb,mlflow"]),
        (("complexity", "--backbone", "torch"), ["torchvision:"]),
        (("propose", "--dataset", "stanford-d"), ["stanford-dogs"]),
        (("datasets", "oxf"), ["oxford-pets"]),
    ],
)
def test_values_are_completed(words, values):
    assert offered(*words) == [("plain", value) for value in values]


def test_folders_and_files_are_left_to_the_shell():
    assert offered("evaluate", "--run", "ru") == [("file", "ru")]
    assert offered("propose", "food1") == [("dir", "food1"), ("plain", "food101")]
    assert offered("train", "--weights", "no") == [("file", "no"), ("plain", "none")]


def test_options_of_other_models_are_not_offered():
    names = [value for _, value in offered("train", "--model", "plain", "--")]
    assert "--backbone" in names and "--units" not in names


def test_no_completion_loads_what_is_slow():
    code = "import sys\nfrom agnet.cli import main\ntry:\n    main(prog_name='agnet')\nfinally:\n"
    code += "    print('loaded', *{name.partition('.')[0] for name in sys.modules})"
    asked = {"_AGNET_COMPLETE": "bash_complete", "COMP_WORDS": "agnet train --boxes b.h5 --log w", "COMP_CWORD": "5"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    answer, loaded = done.stdout.splitlines()
    assert answer == "plain,wandb" and not {"torch", "numpy", "cv2", "joblib", "h5py"} & {*loaded.split()}


@pytest.mark.parametrize("shell", [BashComplete, ZshComplete, FishComplete])
def test_scripts_are_made_for_each_shell(shell):
    made = shell(main, {}, "agnet", "_AGNET_COMPLETE")
    assert f"_AGNET_COMPLETE={shell.name}_complete" in made.source_template % made.source_vars()
