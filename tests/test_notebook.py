"""The notebook in examples/ runs from its first cell to its last, and is stored with what it shows."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import agnet

NOTEBOOK = Path(agnet.__file__).resolve().parent / "examples" / "photographs_to_prediction.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]

# Cells one after the other in one namespace, those of %%bash by bash.
RUN = """
import json, subprocess, sys
names = {"__name__": "__main__"}
for cell in json.load(sys.stdin):
    if cell.startswith("%%bash\\n"):
        subprocess.run(["bash", "-ec", cell.partition("\\n")[2]], check=True)
    else:
        exec(compile(cell, "<cell>", "exec"), names)
"""


def shown(cell, kind):
    return [output["data"][kind] for output in cell["outputs"] if kind in output.get("data", {})]


def test_it_is_stored_as_it_was_run_in_order_with_its_pictures():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    pictures = [picture for cell in CODE for picture in shown(cell, "image/jpeg")]
    assert len(pictures) == 2 and NOTEBOOK.stat().st_size < 300_000
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode("".join(picture)))) as image:
            assert image.width > 600
    assert not any(output["output_type"] == "error" for cell in CODE for output in cell["outputs"])


@pytest.mark.slow
def test_it_runs_and_answers_as_stored(tmp_path):
    """All of it but two of its three epochs."""
    sources = ["".join(cell["source"]).replace("--epochs 3", "--epochs 1") for cell in CODE]
    assert any("--epochs 1" in source for source in sources)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(sources),
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    stored = ["".join(output["text"]) for output in CODE[-1]["outputs"] if output["output_type"] == "stream"]
    assert stored == [result.stdout.splitlines()[-1] + "\n"] == ["cat\n"]
    assert (tmp_path / "regions.png").is_file() and len(list((tmp_path / "answers").iterdir())) == 1
