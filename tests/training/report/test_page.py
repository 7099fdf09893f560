"""The page about a run: what it says, what it never does, and how large it is."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from report_runs import (
    ANSWERS,
    HOSTILE,
    predictions_of,
    searches,
    write_explanations,
    write_images,
    write_run,
)

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError, ConfigurationError
from agnet.data.places import without_paths
from agnet.training.report import page as pages
from agnet.training.report.charts import nice_ticks
from agnet.training.report.facts import read_facts
from agnet.training.report.page import LEVELS, write_report
from agnet.training.report.style import blend


class Elements(HTMLParser):
    """Tags with their attributes, and the text outside of style and script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.inside = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run with photographs and explanations, and its page."""
    place = tmp_path_factory.mktemp("report")
    names, contents = write_images(place / "insects")
    run = write_run(place / "run", predictions_of(names=names, contents=contents))
    write_explanations(run)
    write_report(run, place / "page.html", "test", root=place / "insects")
    return place


@pytest.fixture(scope="module")
def page(place):
    return (place / "page.html").read_text(encoding="utf-8")


def test_the_verdict_says_the_share_its_interval_the_images_and_the_seeds(page):
    # Wilson's interval of 7 of 12, by hand: (7 + 1.92) / 15.84 ± 1.96 / 15.84 · √(12 · 7/12 · 5/12 + 0.96)
    assert sum(truth == answer for truth, answer in ANSWERS) == 7
    assert (
        "58.3% of 12 test images are classified correctly (95% interval over these images: 32.0 to 80.7%; one seed)."
        in (Elements(page).text)
    )
    assert "Always naming the most frequent class would be right for 33.3%." in Elements(page).text


def test_names_from_files_are_text_and_never_markup(page):
    elements = Elements(page)
    assert HOSTILE in elements.text and "<script>alert" not in page
    assert len(elements.all("script")) == 1 and not elements.all("b")
    assert not [name for _, attributes in elements.tags for name in attributes if name.startswith("on")]
    assert [tip for one in elements.all("li") if 'test/"><b>2.png' in (tip := one.get("data-tip", ""))]


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else(page):
    (policy,) = [one["content"] for one in Elements(page).all("meta") if "http-equiv" in one]
    for kind in ("style", "script"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    sources = [one.get("src") or one.get("href") for _, one in Elements(page).tags]
    assert all(source.startswith(("data:", "#")) for source in sources if source)
    assert "style" not in {name for _, one in Elements(page).tags for name in one}


def test_no_private_path_is_told(page, place, a_named_host):
    download = next(one["href"] for one in Elements(page).all("a") if "download" in one)
    for text in (page, base64.b64decode(download.partition(",")[2]).decode()):
        for private in (str(place), str(Path.home()), "/home/someone", a_named_host):
            assert private not in text
    told = without_paths(
        {"a": ["/home/me/x.h5", "C:\\Users\\me\\x.h5", "a/b", 1, "/home/my name/x", "in /home/me/x: 2/3"]}
    )
    assert told == {"a": ["x.h5", "x.h5", "a/b", 1, "x", "in x: 2/3"]}


def test_the_same_files_make_the_same_bytes(place, page):
    again = write_report(place / "run", place / "again.html", "test", root=place / "insects")
    assert again.file.read_text(encoding="utf-8") == page and again.bytes == len(page.encode())


def test_mistakes_are_surest_first_and_right_answers_least_sure_first(page):
    cards = [one for one in Elements(page).all("li") if "data-true" in one]
    numbers = [int(re.search(r"(\d+)\.png", one["data-tip"])[1]) for one in cards]
    assert numbers == [11, 10, 7, 3, 2, *(0, 1, 4, 5, 6, 8, 9)]  # of the answers, each surer than the one before


def test_a_cell_says_count_and_interval(page):
    (cell,) = {
        one["aria-label"] for one in Elements(page).all("button") if one.get("data-true") == "0" == one["data-taken"]
    }
    assert cell == "2 of 4 images of ant right: 50.0% (95% 15.0% to 85.0%)"


def test_a_page_too_large_gets_smaller_photographs_and_says_so(place, page, monkeypatch):
    photographs = sum(len(one["src"]) for one in Elements(page).all("img"))
    monkeypatch.setattr(pages, "MOST_BYTES", len(page.encode()) - photographs // 4)
    small = write_report(place / "run", place / "small.html", "test", root=place / "insects")
    assert small.bytes < pages.MOST_BYTES and small.photographs == 13
    assert "They are smaller, or fewer, than usual" in small.file.read_text(encoding="utf-8")
    monkeypatch.setattr(pages, "MOST_BYTES", 1000)
    with pytest.raises(ConfigurationError, match="too many classes for one page"):
        write_report(place / "run", place / "none.html", "test", root=place / "insects")
    assert not (place / "none.html").exists()


def test_without_images_there_are_none(place):
    bare = write_report(place / "run", place / "bare.html", "test", root=place / "insects", images=False)
    text = bare.file.read_text(encoding="utf-8")
    assert not bare.photographs and "data:image" not in text and "This file contains no photographs." in text


def test_a_photograph_that_changed_since_is_not_shown(place, tmp_path):
    names, contents = write_images(tmp_path / "insects")
    run = write_run(tmp_path / "run", predictions_of(names=names, contents=("0" * 16, *contents[1:])))
    assert write_report(run, tmp_path / "page.html", "test", root=tmp_path / "insects").photographs == 11


def test_what_an_older_run_lacks_is_named_with_its_command(tmp_path):
    run = write_run(tmp_path / "old", predictions_of())
    (run / "log.jsonl").unlink()
    (run / "predictions-test.csv").unlink()
    text = Elements(write_report(run, tmp_path / "page.html", "test").file.read_text(encoding="utf-8")).text
    assert "agnet explain --run old --split test" in text and "agnet evaluate --run old" in text
    assert "has no log of its training" in text and "name it with --boxes" in text.replace("  ", " ")


def test_copies_and_images_of_few_keypoints_are_badged_and_counted(tmp_path):
    columns = {
        "width": [120] * 12,
        "height": [90] * 12,
        "keypoints": range(12),
        "status": ["few keypoints", *["ok"] * 11],
    }
    copies = {"copies_training_image": ["", "train/9.png", *[""] * 10]}
    run = write_run(tmp_path / "run", predictions_of(), facts=columns | copies)
    text = write_report(run, tmp_path / "page.html", "test").file.read_text(encoding="utf-8")
    assert text.count('<span class="badge">') == 2
    cards = [one["data-tip"] for one in Elements(text).all("li") if "data-tip" in one]
    assert any("120 × 90 pixels, 1 keypoints\nsame content as train/9.png" in tip for tip in cards)
    said = Elements(text).text
    assert "Of 1 image, the content is that of a training image." in said and "not recorded by this older" not in said
    assert "Of 1 image, too few keypoints were found" in said


def test_the_proof_is_told_with_its_verdict_and_its_pictures(page):
    text = Elements(page).text
    assert "Better than random orders in 1 of 2 trials." in text and "over 5 of 12 images" in text
    assert "−0.100 (−0.150 to −0.050), better" in text and "+0.010 (−0.020 to +0.040), no better here" in text
    assert f"Surest mistake: said {HOSTILE}, is ant" in text


def test_explanations_of_another_network_are_told_apart(place, tmp_path):
    run = write_run(tmp_path / "run", predictions_of(network="0" * 16))
    write_explanations(run)
    assert read_facts(run, "test").explanations_are_old
    (run / "explanations-test.json").write_text('{"format": "other"}')
    with pytest.raises(CheckpointError, match=r"explanations-test\.json is damaged"):
        read_facts(run, "test")


def test_above_40_classes_pairs_are_a_table_and_the_matrix_is_folded(tmp_path):
    classes = tuple(f"class {k}" for k in range(41))
    answers = [(k, (k + 1) % 41) for k in range(41)]
    run = write_run(tmp_path / "run", predictions_of(answers, classes))
    text = write_report(run, tmp_path / "page.html", "test").file.read_text(encoding="utf-8")
    folded = text[text.index("The whole matrix of 41 classes") :]
    assert text.index("30 of 41 pairs of classes") < text.index("The whole matrix of 41 classes")
    assert folded.index('class="matrix') < folded.index("</details>")


def test_seeds_are_averaged_and_runs_compared_by_their_names(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / "ours" / f"seed-{seed}", predictions_of(), seed, title="Ours")
    other = write_run(tmp_path / "other", predictions_of([(label, 0) for label, _ in ANSWERS]))
    target = write_report(tmp_path / "ours", tmp_path / "page.html", "test", against=other).file
    text = Elements(target.read_text(encoding="utf-8")).text
    assert "58.3 ± 0.0% of 12 test images" in text and "2 seeds, mean ± sd" in text
    assert "Comparison with other" in text and "ifference between Ours and other: +25.0 points in top-1" in text
    assert str(tmp_path) not in target.read_text(encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cannot be compared with itself"):
        read_facts(other, "test", against=other)


def test_a_search_and_videos_have_a_page(tmp_path):
    run = write_run(tmp_path / "search", searches())
    (run / "metrics-query.json").write_text('{"cmc": [0.5, 0.75, 1.0], "protocol": "each query by itself"}')
    text = Elements(write_report(run, tmp_path / "search.html", "query").file.read_text(encoding="utf-8")).text
    assert "The nearest image shows the same person for 66.7% of 3 queries" in text
    assert "Market-1501" in text and "AP 25%" in text and "each query by itself" in text
    videos = predictions_of(aggregate="mean-prob", title="gestures")
    run = write_run(tmp_path / "clips", videos)
    text = Elements(write_report(run, tmp_path / "clips.html", "test").file.read_text(encoding="utf-8")).text
    assert "58.3% of 12 test videos are classified correctly" in text


def test_the_regions_of_the_data_are_shown(place, tmp_path, boxes_file, folder):
    """With the boxes file of the run; one of other images is ignored."""
    boxes = read_boxes(boxes_file)
    run = write_run(tmp_path / "run", predictions_of())
    assert read_facts(run, "test", boxes).boxes is None
    config = run / "config.json"
    config.write_text(config.read_text().replace('"dataset":', f'"fingerprint": "{boxes.fingerprint}", "dataset":'))
    written = write_report(run, tmp_path / "page.html", "test", boxes=boxes, root=folder)
    assert written.photographs == 6 and "Regions of some test images" in written.file.read_text(encoding="utf-8")


def test_the_command_writes_the_page_and_prints_its_path(agnet, tmp_path):
    run = write_run(tmp_path / "run", predictions_of())
    assert agnet("report", "--run", run, "--without-images").stdout.split() == [str(run / "report.html")]
    assert "there is no" not in agnet("report", "--run", run, "--output", "a.html").output
    assert (tmp_path / "a.html").is_file()
    assert "agnet evaluate" in agnet("report", "--run", run, "--split", "val", code=1).output
    assert (
        "name a file in a folder that exists" in agnet("report", "--run", run, "--output", "no/a.html", code=1).output
    )


def test_boxes_of_another_run_and_a_folder_without_the_photographs_are_told(agnet, tmp_path, boxes_file):
    run = write_run(tmp_path / "run", predictions_of())
    (tmp_path / "empty").mkdir()
    told = agnet("report", "--run", run, "--boxes", boxes_file, "--root", tmp_path / "empty").stderr
    assert "that is not the boxes file of the run" in told and "has none of the photographs" in told
    assert "none of the photographs" not in agnet("report", "--run", run, "--without-images").stderr


def test_levels_only_get_smaller():
    for first, second in pairwise(LEVELS):
        assert all(larger >= smaller for larger, smaller in zip(first, second, strict=True))
    assert LEVELS[0][3:] == (200, 100, 24)


def test_ticks_are_round_and_colours_blend():
    assert nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(1, 4, whole=True) == [1, 2, 3, 4] and nice_ticks(0.31, 2.2) == [0.5, 1.0, 1.5, 2.0]
    assert blend("#ff0000", "#0000ff", 0.2) == "#3300cc"
