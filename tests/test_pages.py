"""The commands of README and of every page of the documentation run, and print what the pages say that they print.

A block of bash, sh, console or python is run unless the line above it is ``<!-- not run: reason -->``. A text block
right below one, and what a console block has between its prompts, is its output; ``...`` matches anything, as in
doctest. A block below ``<!-- file: NAME -->`` is a file that later ones use. Every page starts in a folder with
``photos/`` (class folders), ``photos.csv`` (a list of them), ``some/photo.jpg``, and what the page quick-start makes:
``boxes.h5``, ``run`` and ``plain``. Commands whose output is not shown propose fewer regions and train a smaller
backbone, for one epoch unless epochs are what the page is about.
"""

import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import agnet
from agnet.cli import main
from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.build import assemble
from agnet.training.runs.checkpoints import load_checkpoint, save_checkpoint

ROOT = Path(agnet.__file__).resolve().parent
FIRST = ROOT / "docs" / "quick-start.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SLOW = {"cost", "data-sets", "export", "predicting", "training"}
CLASSES = ("ant", "bee")
EACH = 8  #: photographs of a class
IN_ONE_PROCESS = {"train": "--workers", "evaluate": "--workers", "predict": "--jobs"}


class Block(NamedTuple):
    line: int  #: of its fence, from 1
    language: str
    text: str
    why_not: str | None  #: it is not run, and why
    output: str | None  #: what the page says that it prints
    file: str | None = None  #: the name of the file that it shows


def blocks_of(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    found, start, last = [], None, None
    for number, line in enumerate(lines):
        if start is None and line.startswith("```"):
            start = number
        elif start is not None and line.startswith("```"):
            language, text = lines[start][3:].strip(), "\n".join(lines[start + 1 : number])
            reason = re.fullmatch(r"<!-- not run: (.+) -->", lines[start - 1]) if start else None
            file = re.fullmatch(r"<!-- file: (\S+) -->", lines[start - 1]) if start else None
            above = [each for each in lines[last + 1 : start] if each.strip()] if found else None
            if language == "text" and above == []:
                found[-1] = found[-1]._replace(output=text)
            found.append(Block(start + 1, language, text, reason and reason[1], None, file and file[1]))
            start, last = None, number
    assert start is None, f"{page.name}: the block of line {start + 1} does not end"
    return [each for each in found if each.language in ("bash", "console", "python", "sh") or each.file]


def steps_of(block):
    """(commands, the output wanted or None) of a block, one after the other."""
    if block.language != "console":
        yield block.text, block.output
        return
    for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
        command, _, output = re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*)(\n?)(.*)", part, flags=re.S).groups()
        yield command, output.rstrip("\n")


def quicker(words):
    """A command of agnet with fewer regions, or smaller images and a backbone that needs no weights, in one process."""
    option = IN_ONE_PROCESS.get(words[1]) if words[0] == "agnet" else None
    if option and not {option, "--help"} & {*words}:
        words = [*words, option, "0"]
    if words[:3] == ["agnet", "propose", "photos"] and "--primary" not in words:
        return [*words, "--primary", "3"]
    if words[:2] != ["agnet", "train"] or "efficientnet-lite0" not in words:
        return words
    words = ["mobilenet-v3-small" if word == "efficientnet-lite0" else word for word in words]
    if "--stop-after" not in words and "--resume" not in words:
        words = ["1" if before == "--epochs" else word for before, word in zip(["", *words], words, strict=False)]
    return [*words, "--batch-size", "4", "--image-size", "64", *([] if "--weights" in words else ["--weights", "none"])]


def run_shell(text, shown=True):
    """What commands print, ``(stdout, stdout and stderr)``: agnet's own here, also last in a pipe, all else by bash."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.split("#")[0].strip()]
    if any(line.split()[0] in ("for", "while", "if") for line in lines):
        lines = [text]
    out, both = "", ""
    for line in lines:
        before, piped, last = line.rpartition("| agnet ")
        given = in_bash(before)[0] if piped else None
        words = shlex.split(f"agnet {last}" if piped else line, comments=True)
        if words[0] == "agnet" and not re.search(r"[|<>;&$`\n]", re.sub(r"#.*", "", last)):
            result = CliRunner().invoke(main, (words if shown else quicker(words))[1:], given)
            if result.exception and not isinstance(result.exception, SystemExit):
                raise result.exception
            assert result.exit_code == 0, f"{line}\n{result.output}"
            said, all_said = result.stdout, result.output
        else:
            said, all_said = in_bash(line)
        out, both = out + said, both + all_said
    return out, both


def in_bash(line):
    """What bash prints, ``(stdout, stdout and stderr)``."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", "-eo", "pipefail", "-c", line]
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout, done.stdout + done.stderr


def run_python(text, names):
    out, both = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(both):
        exec(compile(text, "<page>", "exec"), names)
    return out.getvalue(), out.getvalue() + both.getvalue()


def as_wanted(wanted, said):
    """Whether an output is as a page shows it; white space at line ends does not count."""
    plain = ["\n".join(line.rstrip() for line in text.strip("\n").splitlines()) + "\n" for text in (wanted, said)]
    return doctest.OutputChecker().check_output(*plain, doctest.ELLIPSIS)


def run_page(page, folder):
    """Run a page's blocks in a folder. Returns how many were run."""
    names, blocks = {"__name__": "__main__"}, [block for block in blocks_of(page) if block.why_not is None]
    with pytest.MonkeyPatch.context() as patch, joblib.parallel_config(backend="sequential"):
        patch.chdir(folder)
        for block in blocks:
            if block.file:
                quick = "mobilenet-v3-small\nweights: none\nbatch-size: 4\nimage-size: 64"
                Path(block.file).write_text(block.text.replace("efficientnet-lite0", quick) + "\n")
                continue
            for commands, wanted in steps_of(block):
                where = f"{page.name}:{block.line}"
                said = (
                    run_python(commands, names)
                    if block.language == "python"
                    else run_shell(commands, shown=wanted is not None)
                )
                fits = wanted is None or any(as_wanted(wanted, each) for each in said)
                assert fits, f"{where}: the page shows\n{wanted}\nand it printed\n{said[1]}"
    return len(blocks)


@pytest.fixture(scope="module")
def start(tmp_path_factory, textured, one_thread, small_mobilenet):
    """The folder that pages start in."""
    place = tmp_path_factory.mktemp("page")
    rows = ["path,label"]
    for label, name in enumerate(CLASSES):
        (place / "photos" / name).mkdir(parents=True)
        for number in range(EACH):
            pixels = textured([label, number], 160, 120) // 2 + np.uint8(40 * label)
            Image.fromarray(pixels).save(place / "photos" / name / f"{number}.jpg", quality=90)
            rows.append(f"photos/{name}/{number}.jpg,{name}")
    (place / "photos.csv").write_text("\n".join(rows) + "\n")
    (place / "some").mkdir()
    shutil.copy(place / "photos" / CLASSES[0] / "0.jpg", place / "some" / "photo.jpg")
    assert run_page(FIRST, place) > 1
    return place


def test_quick_start_makes_what_other_pages_start_with(start):
    for made in ("boxes.h5", "run/best.safetensors", "plain/best.safetensors", "pictures"):
        assert (start / made).exists()


def shrink_network(run, patch):
    """Give a run a network of a few layers that still takes regions: exporting a real one takes a minute."""
    trained = load_checkpoint(run)

    def build(settings):
        body = torch.nn.Conv2d(3, 16, 32, stride=32)
        return assemble(settings, Backbone(body, 16, trained.model.backbones[0].preprocessing))

    without = {"self_attention": False, "inter_attention": False, "fusion": "mean", "se": "none"}
    small = replace(trained.settings, backbone="small", **without)
    save_checkpoint(run / "best.safetensors", replace(trained, settings=small, model=build(small)))
    patch.setattr("agnet.training.runs.checkpoints.build_model", build)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page.stem in SLOW)) for page in PAGES if page != FIRST],
    ids=lambda page: page.stem,
)
def test_a_page_runs(page, start, tmp_path, monkeypatch):
    blocks = [block for block in blocks_of(page) if block.why_not is None]
    if not blocks:
        return
    folder = shutil.copytree(start, tmp_path / "here")
    if page.stem == "export":
        shrink_network(folder / "run", monkeypatch)
    assert run_page(page, folder) == len(blocks)


def test_most_blocks_are_run():
    pages = [page for page in PAGES if page.stem != "results"]  # whose data sets nobody has here
    blocks = [block for page in pages for block in blocks_of(page)]
    assert sum(block.why_not is None for block in blocks) > len(blocks) / 2 > 10


PAGE = """
```bash
echo one; echo two
```

```text
one
t...
```
<!-- not run: needs a GPU -->
```bash
exit 1
```
```console
$ echo three \\
    four
three four
$ true
```
```python
print("five")
```

<!-- file: six.txt -->
```yaml
six
```
```console
$ cat six.txt
six
```
"""


def test_pages_are_read_as_they_are_meant(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert [block.why_not for block in blocks_of(page)] == [None, "needs a GPU", None, None, None, None]
    assert run_page(page, tmp_path) == 5
    page.write_text(PAGE.replace("t...", "three"))
    with pytest.raises(AssertionError, match=r"page\.md:2: the page shows"):
        run_page(page, tmp_path)
    page.write_text(PAGE.replace("$ true", "$ false"))
    with pytest.raises(AssertionError, match="false"):
        run_page(page, tmp_path)
