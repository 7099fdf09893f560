"""The README cannot drift: its commands and options exist, its map of files is complete, its first run works."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import agnet
from agnet.cli import main
from agnet.data.boxes import schema as boxes_schema
from agnet.data.sets.catalogue import CATALOGUE
from agnet.training.models.backbones.backbone import BACKBONES
from agnet.training.recipes import REASONS, RECIPES, Recipe

ROOT = Path(agnet.__file__).resolve().parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shell_lines():
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def agnet_commands():
    return [shlex.split(line)[1:] for line in shell_lines() if line.startswith("agnet ")]


def test_there_are_commands_to_check():
    assert {command[0] for command in agnet_commands()} == {
        "datasets",
        "demo",
        "propose",
        "inspect",
        "train",
        "evaluate",
        "compare",
        "predict",
        "export",
        "complexity",
    }


@pytest.mark.parametrize("command", agnet_commands(), ids=" ".join)
def test_every_command_is_one_the_program_understands(command):
    parameters = {option for parameter in main.commands[command[0]].params for option in parameter.opts}
    for word in command[1:]:
        assert not word.startswith("--") or word in parameters, word


def test_every_option_the_text_names_exists():
    offered = {
        option
        for command in main.commands.values()
        for parameter in command.params
        for option in [*parameter.opts, *parameter.secondary_opts]
    }
    named = set(re.findall(r"`(--[a-z-]+)", README))
    assert named and named <= offered | {"--help"}, named - offered


def test_every_make_target_exists():
    targets = set(re.findall(r"\bmake (\w+)", "\n".join(shell_lines())))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_the_map_of_files_is_complete():
    mapped = set(re.findall(r"^\| `([\w./]+\.py)`", README, flags=re.MULTILINE))
    rooms = ("commands", "data", "proposals", "training", "benchmarks", "examples")
    modules = {path for room in rooms for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py"}
    roots = {"cli.py", "extras.py", "hubconf.py", "predictor.py"}
    assert mapped == {path.relative_to(ROOT).as_posix() for path in modules} | roots


def test_the_format_is_the_schemas():
    rows = dict(re.findall(r"^\| `(\w+)/?` \| [^|]+ \| ([^|]+) \|$", README, flags=re.MULTILINE))
    dtypes = {
        **boxes_schema.COLUMNS,
        boxes_schema.READ_ME: boxes_schema.read_me_dtype(1),
        "secondary": boxes_schema.SECONDARY,
        "settings": boxes_schema.settings_dtype(1, 1),
    }
    assert set(dtypes) == set(boxes_schema.TABLES)
    for table, dtype in dtypes.items():
        assert tuple(re.findall(r"`(\w+)`", rows[table])) == dtype.names, table


def test_every_backbone_is_in_the_table():
    assert set(BACKBONES) <= set(re.findall(r"^\| `([\w-]+)` \| \d+ \|", README, flags=re.MULTILINE))


def test_the_table_of_data_sets_is_the_catalogues():
    for name, entry in CATALOGUE.items():
        if entry.counts:
            numbers = f"{entry.counts['train']:,} / {entry.counts['test']:,} | {entry.classes}"
            assert f"| `{name}` | {numbers}" in README, name


def test_pictures_are_there():
    for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        with Image.open(ROOT / target) as picture:
            assert picture.width > 300


def test_the_first_run_works_as_printed(folder, tmp_path, monkeypatch):
    """The three-minute run, word for word but for weights and epochs, which would need a download and minutes."""
    folder.rename(tmp_path / "photos")
    (tmp_path / "some").mkdir()
    (tmp_path / "photos" / "val" / "ant" / "0.png").rename(tmp_path / "some" / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    section = README[README.index("## Three minutes") :]
    block = re.search(r"```sh\n(.*?)```", section, flags=re.DOTALL).group(1)
    lines = [shlex.split(line) for line in block.splitlines()]
    assert lines[0] == ["pip", "install", "."]
    for words in lines[1:]:
        changed = ["1" if before == "--epochs" else word for before, word in zip(["", *words], words, strict=False)]
        extra = ["--weights", "none"] if words[1] == "train" else []
        result = CliRunner().invoke(main, [*changed[1:], *extra])
        assert result.exit_code == 0, (words, result.output, result.exception)
    assert (tmp_path / "run" / "metrics-test.json").is_file()
    assert len(list((tmp_path / "pictures").iterdir())) == 1


def recipe_rows():
    """The README's table of recipes as it must be: every setting that a recipe gives a reason for."""
    yield "| option | paper | why | modern | why |"
    yield "|---|---|---|---|---|"
    for field in fields(Recipe):
        cells = [f"{getattr(RECIPES[name], field.name)} | {REASONS[name].get(field.name, '')}" for name in RECIPES]
        if any(field.name in reasons for reasons in REASONS.values()):
            yield " | ".join([f"| `--{field.name.replace('_', '-')}`", *cells]).rstrip() + " |"


def test_the_recipes_are_told_with_their_reasons():
    wanted = "\n".join(recipe_rows())
    assert wanted in README, f"README's table of recipes should be:\n{wanted}"
    section = README[README.index("## How it is trained") :].split("\n## ")[0]
    for field in fields(Recipe):
        assert f"`--{field.name.replace('_', '-')}" in section, field.name
