"""The notebook in examples/ runs from its first cell to its last, and is stored with its output."""

import base64
import io
import json
from pathlib import Path

import joblib
from PIL import Image
from test_pages import run_python, run_shell

import agnet

NOTEBOOK = Path(agnet.__file__).resolve().parent / "examples" / "photographs_to_prediction.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


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


def test_it_runs_to_its_end_on_fewer_photographs_and_a_smaller_network(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for cell in CODE:
        source = "".join(cell["source"])
        if source.startswith("%%bash\n"):
            with joblib.parallel_config(backend="sequential"):
                run_shell(source.partition("\n")[2], shown=False)
        else:
            said, _ = run_python(source.replace("range(12)", "range(6)"), names)
    assert len([*tmp_path.glob("photos/*/*.jpg")]) == 4 * 6
    assert said.strip() == names["result"].label and said.strip() in names["pictures"]
    assert (tmp_path / "regions.png").is_file() and len([*(tmp_path / "answers").iterdir()]) == 1


def test_its_stored_answer_is_right():
    assert ["".join(output["text"]) for output in CODE[-1]["outputs"]] == ["cat\n"]
    assert 'view(pictures["cat"]).save("new.jpg"' in "".join(CODE[0]["source"])
