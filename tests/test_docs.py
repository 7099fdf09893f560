"""README and the pages of docs/ cannot drift: commands, options, tables and links, and the site built from them."""

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from test_architecture import ALLOWED, MODELS_WHOLE

import agnet
from agnet.cli import main
from agnet.data.boxes import schema as boxes_schema
from agnet.data.sets.catalogue import CATALOGUE
from agnet.training.models.backbones.backbone import BACKBONES
from agnet.training.recipes import REASONS, RECIPES, Recipe

ROOT = Path(agnet.__file__).resolve().parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


@cache
def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks_of(page, *languages):
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)


def shell_lines(page):
    for block in blocks_of(page, "bash"):
        yield from (line.split("#")[0].strip() for line in block.replace("\\\n", " ").splitlines())
    for block in blocks_of(page, "console"):
        yield from (line[2:] for line in block.splitlines() if line.startswith("$ "))


def agnet_commands():
    """(page, words) of every agnet command, also of those in loops, pipes and torchrun."""
    for page in PAGES:
        for line in shell_lines(page):
            for part in line.split("|"):
                if found := re.search(r"(?:^|do |-- )\s*agnet (.*)$", part.strip()):
                    yield page.name, shlex.split(found[1])


def options_of(command):
    parameters = command.get_params(click.Context(command))
    return {option for parameter in parameters for option in [*parameter.opts, *parameter.secondary_opts]}


def test_every_command_is_on_a_page():
    assert {words[0] for _, words in agnet_commands()} == set(main.commands)


@pytest.mark.parametrize(("page", "words"), [*agnet_commands()], ids=lambda value: " ".join([*value]) if value else "")
def test_commands_are_ones_that_the_program_understands(page, words):
    known = options_of(main.commands[words[0]])
    for word in words[1:]:
        assert not word.startswith("--") or word in known, f"{page}: {word}"


def test_options_that_pages_name_exist():
    offered = {option for command in main.commands.values() for option in options_of(command)} | {"--help"}
    for page in PAGES:
        named = set(re.findall(r"`(--[a-z0-9-]+)", text_of(page)))
        assert named <= offered, f"{page.name}: {named - offered}"


def test_make_targets_exist():
    named = {target for page in PAGES for target in re.findall(r"\bmake ([a-z]+)\b(?=[` \n])", text_of(page))}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, flags=re.MULTILINE))
    assert {"demo", "test", "docs"} <= targets
    assert {"demo", "test", "docs"} <= named


def test_every_room_is_on_the_map():
    mapped = set(re.findall(r"^\| `([\w.]+)` \|", text_of(DOCS / "architecture.md"), flags=re.MULTILINE))
    rooms = {"commands", "examples", "benchmarks"}
    for name in ("data", "proposals", "training"):
        rooms |= {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / name).rglob("*.py")}
    assert mapped == rooms


def test_the_map_has_the_rooms_that_each_room_imports_from():
    page = text_of(DOCS / "architecture.md")
    cells = dict(re.findall(r"^\| `([\w.]+)` \| .* \| ([^|]+) \|$", page, flags=re.MULTILINE))

    def rooms(cell):
        named = set(re.findall(r"`([\w.]+)`", re.sub(r"what `[\w.]+` imports from", "", cell)))
        named |= MODELS_WHOLE if "the models" in cell else set()
        for other in re.findall(r"what `([\w.]+)` imports from", cell):
            named |= rooms(cells[other])
        return named

    for room, below in ALLOWED.items():
        assert rooms(cells[room]) == below - {room}, room


def test_files_that_pages_name_exist():
    for page in PAGES:
        for name in re.findall(r"`(?:python )?((?:[\w-]+/)+[\w-]+\.py)\b", text_of(page)):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"
    named = set(re.findall(r"^\| `(benchmarks/\w+\.py)`", text_of(DOCS / "results.md"), flags=re.MULTILINE))
    assert named == {f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.py")}


def test_the_format_is_the_schemas():
    page = text_of(DOCS / "boxes-file.md")
    rows = dict(re.findall(r"^\| `(\w+)/?` \| [^|]+ \| ([^|]+) \|$", page, flags=re.MULTILINE))
    dtypes = {
        **boxes_schema.COLUMNS,
        boxes_schema.READ_ME: boxes_schema.read_me_dtype(1),
        "secondary": boxes_schema.SECONDARY,
        "settings": boxes_schema.settings_dtype(1, 1),
    }
    assert set(dtypes) == set(boxes_schema.TABLES)
    for table, dtype in dtypes.items():
        assert tuple(re.findall(r"`(\w+)`", rows[table])) == dtype.names, table
    assert f"`format_version` = {boxes_schema.FORMAT_VERSION}," in page


def test_every_backbone_is_in_the_table():
    named = re.findall(r"^\| `([\w-]+)` \| \d+ \|", text_of(DOCS / "models.md"), flags=re.MULTILINE)
    assert set(BACKBONES) <= set(named)


def test_the_table_of_data_sets_is_the_catalogues():
    for name, entry in CATALOGUE.items():
        if entry.counts:
            page = DOCS / ("persons.md" if entry.camera else "data-sets.md")
            counts = [f"{count:,}" for split, count in entry.counts.items() if split != "val"]
            assert f"| `{name}` | {' / '.join(counts)} | {entry.classes:,}" in text_of(page), name


def test_every_public_name_is_in_the_api_reference():
    headings = re.findall(r"heading: agnet\.(\w+)[,}]", text_of(DOCS / "api.md"))
    assert Counter(headings) == Counter(agnet.__all__)


def test_the_readme_is_short():
    assert len(text_of(ROOT / "README.md").encode()) <= 10_000


# --- links, as GitHub and MkDocs resolve them


def anchors_of(page):
    """The anchors of a page's headings: both make them of lower-case words joined by hyphens."""
    included = re.search(r"<!-- page: (\S+) -->", text_of(page))
    text = text_of(ROOT / included[1]) if included else text_of(page)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE):
        yield re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()))


def links():
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose)):
            if not re.match(r"https?://|mailto:", target):
                yield page, target


def test_relative_links_and_anchors_resolve():
    assert sum(1 for _ in links()) > 40
    for page, target in links():
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file() and file.is_relative_to(ROOT), f"{page.name}: {target}"
        assert not anchor or anchor in [*anchors_of(file)], f"{page.name}: {target}"


def test_pictures_are_large_enough_to_read_and_small_enough_to_load():
    pictures = [(page, target) for page, target in links() if target.endswith((".png", ".jpg"))]
    assert pictures
    for page, target in pictures:
        file = page.parent / target
        with Image.open(file) as picture:
            assert picture.width > 600, target
        assert file.stat().st_size < 300_000, target


# --- the site


def navigation():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return [page for entry in settings["nav"] for page in entry.values()]


def test_every_page_is_in_the_navigation():
    assert sorted(navigation()) == sorted(page.name for page in DOCS.glob("*.md"))


class _Fetched(HTMLParser):
    """Addresses that a browser loads by itself when it shows a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag in {"script", "img", "source", "iframe"}:
            self.found.append(attributes.get("src") or "")
        if tag == "link" and attributes.get("rel") in {"stylesheet", "preload", "icon", "preconnect"}:
            self.found.append(attributes.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make docs` builds it: a warning is an error."""
    place = tmp_path_factory.mktemp("site") / "site"
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--verbose", "--site-dir", str(place)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(words, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert built.returncode == 0, "\n".join(line for line in built.stderr.splitlines() if "DEBUG" not in line)
    (place.parent / "log.txt").write_text(built.stderr, encoding="utf-8")
    return place


def test_the_reference_is_of_this_copy_of_the_sources_and_nothing_else_is_searched(site):
    read = re.findall(r"griffe: Loading path (\S+)", (site.parent / "log.txt").read_text(encoding="utf-8"))
    folders = {path.partition("/agnet/")[0] for path in read}
    assert len(read) > 100 and len(folders) == 1 and "agnet-docs-" in folders.pop()


def html_of(site, page):
    return (site / page).with_suffix(".html").read_text(encoding="utf-8")


def test_every_page_is_built_and_fetches_nothing_from_elsewhere(site):
    for page in navigation():
        text = html_of(site, page)
        assert "<h1" in text, page
        assert not [address for address in _Fetched(text).found if re.match(r"(https?:)?//", address)], page
        assert not re.search(r"<!-- (page|options|recipes)", text), page


def test_tables_of_the_site_are_the_codes(site):
    recipes = html_of(site, "recipes.md")
    for field in fields(Recipe):
        assert f">--{field.name.replace('_', '-')}</code>" in recipes, field.name
    for reason in REASONS["modern"].values():
        assert reason.split(",")[0] in recipes, reason
    assert f"<strong>{RECIPES['modern'].lr}</strong>" in recipes
    together = "".join(html_of(site, page) for page in navigation())
    for name, command in main.commands.items():
        for option in options_of(command) if name != "demo" else ():
            assert not option.startswith("--") or re.search(rf"<td><code[^>]*>[^<]*{option}\b", together), (
                name,
                option,
            )


def test_docstrings_reach_the_api_reference(site):
    text = re.sub(r"<[^>]+>", "", html_of(site, "api.md"))
    for name in agnet.__all__:
        first = re.split(r"[`\n]", (getattr(agnet, name).__doc__ or "").strip())[0].strip()
        assert first and first in text, name


# --- the first run


def test_the_first_run_works_as_printed(folder, tmp_path, monkeypatch):
    """Three minutes with one's own photographs, word for word but for weights and epochs, which would take minutes."""
    folder.rename(tmp_path / "photos")
    (tmp_path / "some").mkdir()
    (tmp_path / "photos" / "val" / "ant" / "0.png").rename(tmp_path / "some" / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    readme = text_of(ROOT / "README.md")
    section = readme[readme.index("\n## Three minutes") :]
    lines = [shlex.split(line) for line in re.search(r"```bash\n(.*?)```", section, flags=re.DOTALL)[1].splitlines()]
    assert lines[0] == ["pip", "install", ".[demo]"]
    for words in lines[1:]:
        changed = ["1" if before == "--epochs" else word for before, word in zip(["", *words], words, strict=False)]
        changed = ["mobilenet-v3-small" if word == "efficientnet-lite0" else word for word in changed]
        extra = ["--weights", "none"] if words[1] == "train" else []
        result = CliRunner().invoke(main, [*changed[1:], *extra])
        assert result.exit_code == 0, (words, result.output, result.exception)
    assert (tmp_path / "run" / "metrics-test.json").is_file()
    assert len(list((tmp_path / "pictures").iterdir())) == 1
