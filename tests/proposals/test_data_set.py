import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext

import h5py
import joblib
import numpy as np
import pytest
from PIL import Image

from agnet.data.boxes.reader import read_boxes, read_listing
from agnet.data.boxes.verification import changed_images
from agnet.data.errors import BoxesFileError, ConfigurationError, ImageError, MismatchError
from agnet.data.images import read_image
from agnet.data.sets.catalogue import open_dataset
from agnet.proposals import provenance
from agnet.proposals import run as data_set
from agnet.proposals.one_image import propose_regions
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings

SETTINGS = ProposalSettings(primary=3)


def propose(folder, boxes, settings=SETTINGS, opened=None, **options):
    index = open_dataset("folder", folder, **(opened or {}))
    if "jobs" in options:
        with joblib.parallel_config(backend="loky"):
            return propose_dataset(index, settings, boxes, **options)
    return propose_dataset(index, settings, boxes, **options)


@pytest.fixture(scope="module")
def _original_boxes(_original_folder, tmp_path_factory):
    """Of a copy that is called images, as `folder` is: a boxes file names its data set's folder."""
    place = tmp_path_factory.mktemp("copied")
    return propose(shutil.copytree(_original_folder, place / "images"), place / "boxes.h5").boxes


@pytest.fixture
def straight(_original_boxes):
    """The bytes that an undisturbed run over `folder` writes."""
    return _original_boxes.read_bytes()


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of four images, worked on two at a time, so that the 18 images of `folder` make five."""
    monkeypatch.setattr(data_set, "PART_IMAGES", 4)
    monkeypatch.setattr(data_set, "CHUNK_IMAGES", 2)


def interrupt_after(images):
    def progress(done, unreadable):
        if done > images:
            raise KeyboardInterrupt

    return progress


def test_a_data_sets_boxes_are_those_of_its_images(folder, tmp_path):
    calls = []
    summary = propose(folder, tmp_path / "new" / "boxes.h5", progress=lambda *counts: calls.append(counts))
    assert summary.boxes == tmp_path / "new" / "boxes.h5"
    assert (summary.images, summary.few_keypoints, summary.unreadable, summary.reused) == (18, 0, 0, 0)
    assert calls[-1] == (18, 0)
    boxes = read_boxes(summary.boxes)
    assert boxes.classes == ("ant", "bee", "côté")
    assert boxes.usable.tolist() == list(range(18))
    for row, name in enumerate(boxes.names):
        regions = propose_regions(read_image(folder / name.decode()), SETTINGS)
        assert boxes.sizes_wh[row].tolist() == list(regions.size_wh)
        assert boxes.keypoints[row].tolist() == regions.keypoints.tolist()
        assert boxes.primary_xyxy[row].tolist() == regions.primary_xyxy.tolist()
        np.testing.assert_allclose(boxes.weights[row], regions.weights, atol=1e-4)
        assert boxes.regions(row).hull_xy.tolist() == regions.hull_xy.tolist()


def test_the_file_tells_its_data_set_splits_and_settings(folder, tmp_path):
    boxes = read_boxes(propose(folder, tmp_path / "boxes.h5").boxes)
    index = open_dataset("folder", folder)
    assert boxes.dataset == "folder"
    opened = {"val_fraction": 0.1, "split_seed": 0, "limit": None}
    assert boxes.settings["dataset"] == {"name": "folder", **opened}
    assert ProposalSettings.from_dict(boxes.settings["proposals"]) == SETTINGS
    assert set(boxes.settings["versions"]) >= {"agnet", "opencv", "numpy", "pillow"}
    assert tuple(name.decode() for name in boxes.names) == index.names
    assert boxes.splits.tolist() == index.splits.tolist()
    assert set(boxes.splits.tolist()) == {"train", "val", "test"}
    assert not list(tmp_path.glob("boxes.h5.*"))


def test_no_path_of_this_machine_gets_into_the_file(folder, tmp_path, a_named_host):
    with h5py.File(propose(folder, tmp_path / "boxes.h5").boxes) as file:
        texts = [value for value in file.attrs.values() if isinstance(value, bytes)]
        tables = [file[name][:].tobytes() for name in file if name != "preview"]
        captions = [picture.attrs["description"] for picture in file["preview"].values()]
    everything = b"".join([*texts, *tables, *captions])
    assert b"train/ant/0.png" in everything
    for secret in (str(tmp_path), str(folder), tmp_path.name, a_named_host):
        assert secret.encode() not in everything


def test_previews_are_pictures_of_the_data_set(boxes_file):
    with h5py.File(boxes_file) as file:
        names = sorted(file["preview"])
        assert len(names) == 13
        assert names[:2] == ["00_contact_sheet", "image_00000_ant"] and names[-1] == "image_00017_côté"
        for name in names:
            picture = file["preview"][name]
            assert picture.dtype == np.uint8
            assert picture.ndim == 3
            assert picture.attrs["CLASS"] == b"IMAGE"
        assert max(file["preview/image_00000_ant"].shape) == 480


def test_a_file_without_previews_has_no_pixel_and_the_same_tables(folder, boxes_file, tmp_path):
    without = propose(folder, tmp_path / "without.h5", previews=False)
    assert without.previews == 0
    with h5py.File(boxes_file) as one, h5py.File(without.boxes) as other:
        assert set(one) - set(other) == {"preview"} and set(other) < set(one)
        assert all(one[name][:].tobytes() == other[name][:].tobytes() for name in other)
        assert dict(one.attrs) == dict(other.attrs)
    assert read_boxes(boxes_file).fingerprint == read_boxes(without.boxes).fingerprint


def test_previews_are_a_difference_only_where_they_would_stay(folder, boxes_file):
    """Whoever asks for none must not be left with a file that has them; a file without them is nobody's harm."""
    boxes = boxes_file
    before = boxes.read_bytes()
    with pytest.raises(MismatchError, match="holds 12 photographs as previews; --restart"):
        propose(folder, boxes, previews=False)
    assert boxes.read_bytes() == before
    assert propose(folder, boxes, previews=False, restart=True).previews == 0
    bare = boxes.read_bytes()
    for previews in (True, False):
        assert propose(folder, boxes, previews=previews).reused == 18 and boxes.read_bytes() == bare


@pytest.mark.parametrize("there", [h5py.ExternalLink("/nowhere.h5", "/x"), h5py.SoftLink("/images"), 5, None], ids=str)
def test_previews_of_a_strangers_file_are_counted_without_following_links(boxes_file, there):
    assert data_set.embedded_photographs(boxes_file) == 12
    with h5py.File(boxes_file, "a") as file:
        del file["preview"]
        if there is not None:
            file["preview"] = there
    assert data_set.embedded_photographs(boxes_file) == 0


@pytest.mark.usefixtures("small_parts")
def test_an_unfinished_run_goes_on_with_or_without_previews(folder, tmp_path):
    straight = propose(folder, tmp_path / "straight.h5", previews=False).boxes.read_bytes()
    boxes = tmp_path / "boxes.h5"
    with pytest.raises(KeyboardInterrupt):
        propose(folder, boxes, progress=interrupt_after(8))
    assert propose(folder, boxes, previews=False).reused == 8 and boxes.read_bytes() == straight


def test_a_previews_caption_is_in_its_own_letters(boxes_file):
    with h5py.File(boxes_file) as file:
        captions = {name: picture.attrs["description"].decode() for name, picture in file["preview"].items()}
    assert any("class côté" in caption for caption in captions.values()) and any(
        name.endswith("_côté") for name in captions
    )


@pytest.mark.usefixtures("small_parts")
def test_any_number_of_workers_and_any_backend_writes_equal_bytes(folder, straight, tmp_path):
    for jobs in (1, 2):
        assert propose(folder, tmp_path / f"{jobs}-jobs.h5", jobs=jobs).boxes.read_bytes() == straight
    with joblib.parallel_config(backend="threading"):
        assert propose(folder, tmp_path / "threads.h5").boxes.read_bytes() == straight


def test_parts_of_any_size_give_equal_bytes(folder, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(data_set, "PART_IMAGES", 5)
    assert propose(folder, tmp_path / "parted.h5").boxes.read_bytes() == straight


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_run_goes_on_where_it_was(jobs, folder, straight, tmp_path):
    boxes = tmp_path / "boxes.h5"
    with pytest.raises(KeyboardInterrupt):
        propose(folder, boxes, jobs=jobs, progress=interrupt_after(8))
    assert not boxes.exists()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "boxes.h5.parts").glob("*.npz")}
    assert len(finished) == 2
    with pytest.raises(KeyboardInterrupt):
        propose(folder, boxes, jobs=jobs, progress=interrupt_after(12))
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in finished.items())
    summary = propose(folder, boxes, jobs=jobs)
    assert summary.reused == 12
    assert boxes.read_bytes() == straight
    assert not (tmp_path / "boxes.h5.parts").exists()


@pytest.mark.usefixtures("small_parts")
def test_finished_parts_of_other_settings_are_neither_reused_nor_thrown_away(folder, tmp_path):
    boxes, other = tmp_path / "boxes.h5", ProposalSettings(primary=4)
    with pytest.raises(KeyboardInterrupt):
        propose(folder, boxes, progress=interrupt_after(8))
    with pytest.raises(MismatchError, match=r"unfinished run .* primary = 3, this run has 4; add --restart"):
        propose(folder, boxes, other)
    assert len(list((tmp_path / "boxes.h5.parts").glob("*.npz"))) == 2
    assert propose(folder, boxes, other, restart=True).reused == 0
    assert boxes.read_bytes() == propose(folder, tmp_path / "straight.h5", other).boxes.read_bytes()


@pytest.mark.usefixtures("small_parts")
def test_a_part_with_a_changed_image_is_computed_again(folder, tmp_path, textured):
    boxes = tmp_path / "boxes.h5"
    with pytest.raises(KeyboardInterrupt):
        propose(folder, boxes, progress=interrupt_after(8))
    Image.fromarray(textured(77, 96, 80)).save(folder / "train" / "ant" / "1.png")
    assert propose(folder, boxes).reused == 4
    assert boxes.read_bytes() == propose(folder, tmp_path / "straight.h5").boxes.read_bytes()


# A run that stops for its parent after the second part, with the lock in its hands.
WAITING_RUN = """
import sys
from pathlib import Path
from agnet.data.sets.catalogue import open_dataset
from agnet.proposals import provenance, run as data_set
from agnet.proposals.settings import ProposalSettings

data_set.PART_IMAGES, data_set.CHUNK_IMAGES = 4, 2

def progress(done, unreadable):
    if done > 8:
        print("waiting", flush=True)
        sys.stdin.read()

data_set.propose_dataset(
    open_dataset("folder", sys.argv[1]), ProposalSettings(primary=3), Path(sys.argv[2]),
    jobs=1, progress=progress,
)
"""


@pytest.mark.usefixtures("small_parts")
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_second_run_is_refused_and_a_killed_one_goes_on(folder, tmp_path):
    boxes = tmp_path / "boxes.h5"
    command = [sys.executable, "-c", WAITING_RUN, str(folder), str(boxes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "waiting\n"
            with pytest.raises(BoxesFileError, match="another run is writing"):
                propose(folder, boxes)
            with pytest.raises(BoxesFileError, match="another run is writing"):
                propose(folder, boxes, restart=True)
            propose(folder, tmp_path / "straight.h5")
        finally:
            other.kill()
    assert not boxes.exists()
    # What a kill amid writing leaves behind.
    (tmp_path / "boxes.h5.tmp").write_bytes(b"half a file")
    (tmp_path / "boxes.h5.parts" / "00002-0.npz.tmp").write_bytes(b"half a part")
    summary = propose(folder, boxes)
    assert summary.reused == 8
    assert boxes.read_bytes() == (tmp_path / "straight.h5").read_bytes()
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {
        "images",
        "boxes.h5",
        "straight.h5",
    }


def test_the_same_run_again_computes_nothing(folder, boxes_file, monkeypatch):
    before = boxes_file.read_bytes(), boxes_file.stat().st_mtime_ns

    def never(*_):
        raise AssertionError("an image was worked on")

    monkeypatch.setattr(data_set, "propose_chunk", never)
    again = propose(folder, boxes_file)
    assert (again.images, again.reused) == (18, 18)
    assert (boxes_file.read_bytes(), boxes_file.stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"settings": ProposalSettings(primary=4)}, "proposals setting: primary = 3, this run has 4"),
        ({"settings": ProposalSettings(primary=3, seed=1)}, "seed = 0, this run has 1"),
        (
            {"opened": {"val_fraction": 0.2}},
            "dataset setting: val_fraction = 0.1, this run has 0.2",
        ),
        ({"opened": {"limit": 9}}, "limit = None, this run has 9"),
    ],
)
def test_other_settings_are_refused_by_name_and_taken_with_restart(changes, difference, folder, boxes_file, tmp_path):
    boxes = boxes_file
    before = boxes.read_bytes()
    with pytest.raises(MismatchError, match=difference) as refusal:
        propose(folder, boxes, **changes)
    assert "--restart" in str(refusal.value)
    assert boxes.read_bytes() == before
    propose(folder, boxes, restart=True, **changes)
    assert boxes.read_bytes() == propose(folder, tmp_path / "new.h5", **changes).boxes.read_bytes() != before


def test_other_versions_are_refused_by_name(folder, boxes_file, monkeypatch):
    monkeypatch.setattr(data_set.np, "__version__", "99.0")
    with pytest.raises(MismatchError, match=r"versions setting: numpy = .*, this run has '99\.0'"):
        propose(folder, boxes_file)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("finished", [True, False])
def test_what_another_revision_of_the_method_has_made_is_not_gone_on_with(finished, folder, tmp_path, monkeypatch):
    boxes, grid = tmp_path / "boxes.h5", ProposalSettings(method="grid")
    with monkeypatch.context() as before:
        before.setattr(provenance, "REVISIONS", {})
        with nullcontext() if finished else pytest.raises(KeyboardInterrupt):
            propose(folder, boxes, progress=interrupt_after(18 if finished else 8))
        propose(folder, tmp_path / "grid.h5", grid)
    with pytest.raises(MismatchError, match="versions setting: agnet's sift = None, this run has 2; add --restart"):
        propose(folder, boxes)
    assert propose(folder, boxes, restart=True).reused == 0
    assert propose(folder, tmp_path / "grid.h5", grid).reused == 18  # finds what it has always found


def relabel(folder):
    shutil.move(folder / "train" / "ant" / "1.png", folder / "train" / "bee" / "extra.png")


def rewrite(folder):
    path = folder / "train" / "ant" / "1.png"
    with Image.open(path) as image:
        turned = image.transpose(Image.Transpose.ROTATE_180)
    turned.save(path)


def same_size(folder):
    """One byte of the pixels changes, the size stays, the time of change moves."""
    path = folder / "train" / "ant" / "1.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (relabel, "1 new, first train/bee/extra.png and 1 gone, first train/ant/1.png"),
        (rewrite, r"train/ant/1.png had [\d,]+ bytes and has [\d,]+ now"),
        (same_size, "train/ant/1.png has different content"),
        (lambda folder: (folder / "val" / "bee" / "0.png").unlink(), "1 gone, first val/bee/0.png"),
    ],
)
def test_other_images_or_labels_are_refused(change, difference, folder, boxes_file):
    change(folder)
    with pytest.raises(MismatchError, match=f"other images than are there now: {difference}; add --restart"):
        propose(folder, boxes_file)
    propose(folder, boxes_file, restart=True)


def test_only_a_boxes_file_is_replaced_on_request_be_it_damaged(folder, straight, tmp_path):
    boxes = tmp_path / "boxes.h5"
    boxes.write_bytes(b"something precious")
    with pytest.raises(BoxesFileError, match="not an HDF5 file"):
        propose(folder, boxes)
    with pytest.raises(BoxesFileError, match="not a boxes file and will not be replaced"):
        propose(folder, boxes, restart=True)
    assert boxes.read_bytes() == b"something precious"
    boxes.write_bytes(straight[: len(straight) // 2])
    with pytest.raises(BoxesFileError, match="damaged"):
        propose(folder, boxes)
    assert propose(folder, boxes, restart=True).images == 18
    assert boxes.read_bytes() == straight
    with h5py.File(tmp_path / "theirs.h5", "w") as theirs:
        theirs["measurements"] = np.arange(5)
    with pytest.raises(BoxesFileError, match="will not be replaced"):
        propose(folder, tmp_path / "theirs.h5", restart=True)


@pytest.mark.usefixtures("small_parts")
def test_unreadable_images_are_recorded_and_counted(folder, tmp_path):
    train = folder / "train" / "bee"
    (train / "0.png").write_bytes((train / "0.png").read_bytes()[:200])
    (train / "1.png").write_bytes(b"")
    (train / "2.png").unlink()
    (train / "2.png").symlink_to(tmp_path / "nowhere.png")
    Image.new("RGB", (30, 20), "red").save(train / "3.png")
    progress = []
    summary = propose(folder, tmp_path / "boxes.h5", progress=lambda *counts: progress.append(counts))
    assert (summary.images, summary.few_keypoints, summary.unreadable) == (18, 1, 3)
    assert progress[-1] == (18, 3)
    boxes = read_boxes(summary.boxes)
    reasons = dict(boxes.failures)
    assert sorted(reasons) == ["train/bee/0.png", "train/bee/1.png", "train/bee/2.png"]
    assert "truncated" in reasons["train/bee/0.png"]
    assert "empty" in reasons["train/bee/1.png"]
    assert "cannot be read" in reasons["train/bee/2.png"]
    status = {name.decode(): status for name, status in zip(boxes.names, boxes.status.tolist(), strict=True)}
    assert {name for name, its in status.items() if its == "unreadable"} == set(reasons)
    assert [name for name, its in status.items() if its == "few keypoints"] == ["train/bee/3.png"]
    assert len(boxes.usable) == 15
    assert not set(reasons) & {boxes.names[row].decode() for row in boxes.usable}
    attributes = read_listing(summary.boxes).attributes
    assert (attributes["images_unreadable"], attributes["images_with_few_keypoints"]) == (3, 1)


def test_no_usable_image_at_all_is_an_error(folder, tmp_path):
    for path in folder.rglob("*.png"):
        path.write_text("not found")
    with pytest.raises(BoxesFileError, match="of the 18 images could be used; the first, train/ant/0"):
        propose(folder, tmp_path / "boxes.h5")
    assert not (tmp_path / "boxes.h5").exists()


def test_the_fingerprint_tells_images_and_settings_but_not_where_they_lie(folder, boxes_file, tmp_path):
    def fingerprint(folder, name, settings=SETTINGS):
        return read_boxes(propose(folder, tmp_path / name, settings).boxes).fingerprint

    here = read_boxes(boxes_file).fingerprint
    moved = shutil.copytree(folder, tmp_path / "moved", copy_function=shutil.copyfile)
    assert fingerprint(moved, "moved.h5") == here
    assert fingerprint(folder, "seed.h5", ProposalSettings(primary=3, seed=1)) != here
    rewrite(moved)
    assert fingerprint(moved, "rewritten.h5") != here


def test_recorded_settings_are_the_table_people_see(boxes_file):
    settings = read_listing(boxes_file).settings
    with h5py.File(boxes_file) as file:
        rows = [tuple(cell.decode() for cell in row) for row in file["settings"][:].tolist()]
    shown = {name: value for name, value, _ in rows}
    assert shown == {
        f"{section}: {name}": str(value) for section, values in settings.items() for name, value in values.items()
    }
    assert shown["proposals: primary"] == "3"
    assert [name for name, _, used in rows if used == "no"] == ["proposals: weights"]
    assert json.loads(json.dumps(settings)) == settings


def test_few_keypoints_are_among_the_previews_on_purpose(folder, tmp_path):
    plain = folder / "train" / "bee" / "1.png"
    Image.new("RGB", (90, 60), "red").save(plain)
    boxes = propose(folder, tmp_path / "boxes.h5").boxes
    row = [name.decode() for name in read_listing(boxes).names].index("train/bee/1.png")
    with h5py.File(boxes) as file:
        assert f"image_{row:05d}_bee" in file["preview"] and len(file["preview"]) == 13


@pytest.mark.parametrize(
    ("statuses", "chosen"),
    [
        ("o" * 5, [0, 1, 2, 3, 4]),
        ("o" * 23, [*range(0, 24, 2)]),
        ("f" * 40, [0, 3, 6, 10, 14, 18, 19, 22, 26, 30, 34, 39]),
        ("u" * 7 + "o", [7]),
        ("o" * 50 + "f" * 5, [0, 6, 12, 19, 25, 31, 38, 44, 50, 52, 53, 54]),
    ],
)
def test_previews_are_evenly_chosen(statuses, chosen):
    kinds = {"o": b"ok", "f": b"few keypoints", "u": b"unreadable"}
    found = data_set._previewed(np.array([kinds[letter] for letter in statuses]))
    assert len(found) == len(set(found)) == min(12, sum(letter != "u" for letter in statuses))
    if "f" not in statuses or "o" in statuses:
        assert found == chosen


def test_a_file_without_regions_is_like_others_but_for_them(folder, tmp_path):
    settings = ProposalSettings(method="none", primary=0, kinds="none")
    (folder / "train" / "ant" / "1.png").write_bytes(b"no image")
    straight = propose(folder, tmp_path / "straight.h5", settings).boxes.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_set, "PART_IMAGES", 4)
        patch.setattr(data_set, "CHUNK_IMAGES", 2)
        with pytest.raises(KeyboardInterrupt):
            propose(folder, tmp_path / "boxes.h5", settings, progress=interrupt_after(8))
        summary = propose(folder, tmp_path / "boxes.h5", settings)
    assert summary.boxes.read_bytes() == straight
    assert (summary.few_keypoints, summary.unreadable, summary.previews) == (0, 1, 12)
    boxes = read_boxes(summary.boxes)
    assert boxes.faults == ("not an image",) and boxes.sizes_wh[0].tolist() == [96, 80]
    assert ProposalSettings.from_dict(boxes.settings["proposals"]) == settings
    assert propose(folder, summary.boxes, settings).reused == 18
    with pytest.raises(MismatchError, match="kinds = 'none', this run has 'both'"):
        propose(folder, summary.boxes)


@pytest.mark.parametrize("values", [{"method": "none"}, {"primary": 0, "kinds": "none"}, {"primary": 0}])
def test_no_regions_are_asked_for_in_one_way(values):
    with pytest.raises(ConfigurationError, match=r"none goes with primary 0|wanted 2 to 36"):
        ProposalSettings(**values)


@pytest.mark.parametrize("method", ["sift", "grid", "random", "none"])
def test_settings_said_to_be_idle_change_nothing_and_others_do(method, folder):
    pixels = read_image(folder / "train" / "ant" / "3.png")
    base = {"primary": 0, "kinds": "none"} if method == "none" else {"primary": 3}
    others = {"image_size": 96, "mixture": "scikit-learn", "slot_order": "top-to-bottom", "max_iter": 1, "seed": 5}
    others |= {"tol": 0.5, "reg_covar": 40.0}

    def found(**changes):
        regions = propose_regions(pixels, ProposalSettings(method=method, **base, **changes))
        return regions.hull_xy.tobytes()

    idle = ProposalSettings(method=method, **base).idle
    for name, value in others.items():
        if name in idle:
            assert found(**{name: value}) == found(), name
    # Of the others some may find the same in one photograph.
    for name in {"sift": ("image_size", "max_iter"), "random": ("image_size", "seed")}.get(method, ()):
        assert name not in idle and found(**{name: others[name]}) != found(), name


def test_a_file_of_version_2_is_finished_and_has_the_same_fingerprint(folder, boxes_file, straight, as_version_2):
    wanted = read_boxes(boxes_file).fingerprint
    old = as_version_2(boxes_file)
    before = old.read_bytes()
    summary = propose(folder, old)
    assert (summary.reused, summary.previews) == (18, 12) and old.read_bytes() == before
    assert read_boxes(old).fingerprint == wanted
    assert propose(folder, old, restart=True).reused == 0 and old.read_bytes() == straight


def test_a_copied_or_renamed_folder_is_the_same_data_set(folder, boxes_file, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    assert propose(copied, boxes_file).reused == 18


def test_a_folder_as_the_output_is_refused_and_left_alone(folder, tmp_path):
    (tmp_path / "out").mkdir()
    for place in (tmp_path / "out", type(tmp_path)()):
        with pytest.raises(BoxesFileError, match="is a folder"):
            propose(folder, place)
    assert not list((tmp_path / "out").iterdir())


def test_a_damaged_part_is_computed_again(folder, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(data_set, "PART_IMAGES", 4)
    with pytest.raises(KeyboardInterrupt):
        propose(folder, tmp_path / "boxes.h5", progress=interrupt_after(8))
    part = min((tmp_path / "boxes.h5.parts").glob("*.npz"))
    part.write_bytes(part.read_bytes()[:100])
    summary = propose(folder, tmp_path / "boxes.h5")
    assert summary.reused == 4 and summary.boxes.read_bytes() == straight


def test_a_relative_root_means_the_same_to_every_worker(folder, tmp_path, monkeypatch):
    for place in ("here", "there"):  # the second run meets workers that were started in the first one's folder
        (tmp_path / place).mkdir()
        shutil.copytree(folder, tmp_path / place / place)
        monkeypatch.chdir(tmp_path / place)
        assert propose(type(tmp_path)(place), tmp_path / f"{place}.h5", jobs=2).unreadable == 0


def test_workers_keep_freed_memory_where_the_system_takes_it_back():
    """A fresh process that takes and frees 20 MB again and again faults its pages in once, not every time."""
    program = """
import ctypes, resource, sys
from agnet.data.memory import keep_freed_memory
with __import__("contextlib").suppress(OSError, AttributeError):
    ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a huge page faults once for 512 small ones
told = keep_freed_memory() if sys.argv[1] == "keep" else False
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    [bytearray(2_000_000) for _ in range(10)]
print(int(told), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    runs = {}
    of_malloc = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(of_malloc)}
    for what in ("keep", "leave"):
        result = subprocess.run(
            [sys.executable, "-c", program, what], capture_output=True, text=True, check=True, env=environment
        )
        runs[what] = [int(number) for number in result.stdout.split()]
    if not runs["keep"][0]:
        pytest.skip("no glibc here")
    assert runs["keep"][1] < runs["leave"][1] / 2


@pytest.mark.usefixtures("small_parts")
def test_finished_parts_of_another_list_of_images_are_not_thrown_away(folder, tmp_path):
    boxes = tmp_path / "boxes.h5"
    with pytest.raises(KeyboardInterrupt):
        propose(folder, boxes, progress=interrupt_after(8))
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "train" / "ant" / "0.png").unlink()
    with pytest.raises(MismatchError, match=r"another list of images.*\(18 images then, 17 now\); add --restart"):
        propose(other, boxes)
    assert propose(folder, boxes).reused == 8


@pytest.mark.usefixtures("small_parts")
def test_a_restart_that_is_interrupted_goes_on_and_leaves_the_old_file_until_it_is_done(folder, boxes_file, tmp_path):
    boxes, other = boxes_file, ProposalSettings(primary=4)
    before = boxes.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        propose(folder, boxes, other, restart=True, progress=interrupt_after(8))
    assert boxes.read_bytes() == before
    assert propose(folder, boxes, other).reused == 8
    assert boxes.read_bytes() == propose(folder, tmp_path / "straight.h5", other).boxes.read_bytes()


def test_files_from_the_first_of_january_1970_are_files(folder, tmp_path):
    for path in folder.rglob("*.png"):
        os.utime(path, ns=(0, 0))
    boxes = propose(folder, tmp_path / "boxes.h5").boxes
    assert list(changed_images(read_listing(boxes), folder, trust_times=False)) == []
    (folder / "val" / "bee" / "0.png").unlink()
    (folder / "val" / "bee" / "1.png").write_bytes(b"other")
    changed = dict(changed_images(read_listing(boxes), folder, trust_times=True))
    assert changed.keys() == {"val/bee/0.png", "val/bee/1.png"} and changed["val/bee/0.png"] == "is gone"


@pytest.mark.usefixtures("small_parts")
def test_an_image_that_could_not_be_opened_is_tried_again_and_does_not_make_the_file_stale(folder, tmp_path):
    boxes, image = tmp_path / "boxes.h5", folder / "train" / "ant" / "0.png"
    content = image.read_bytes()
    image.unlink()
    image.symlink_to(tmp_path / "not yet there.png")
    with pytest.raises(KeyboardInterrupt):
        propose(folder, boxes, progress=interrupt_after(8))
    (tmp_path / "not yet there.png").write_bytes(content)
    summary = propose(folder, boxes)
    assert (summary.reused, summary.unreadable) == (4, 0)
    (tmp_path / "not yet there.png").unlink()
    boxes.unlink()
    assert propose(folder, boxes).unreadable == 1
    assert propose(folder, boxes).reused == 18
    (tmp_path / "not yet there.png").write_bytes(content)
    with pytest.raises(MismatchError, match=r"train/ant/0\.png could not be opened then and can be now"):
        propose(folder, boxes)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_with_an_images_name_is_not_waited_for(folder, tmp_path):
    (folder / "train" / "ant" / "0.png").unlink()
    os.mkfifo(folder / "train" / "ant" / "0.png")
    boxes = read_boxes(propose(folder, tmp_path / "boxes.h5").boxes)
    assert boxes.failures == (("train/ant/0.png", "is not a file"),)
    assert not list(changed_images(boxes, folder, trust_times=False))
    with pytest.raises(ImageError, match="is not a file"):
        read_image(folder / "train" / "ant" / "0.png")


def test_what_somebody_keeps_among_the_parts_stays_theirs(folder, tmp_path):
    (tmp_path / "boxes.h5.parts").mkdir()
    (tmp_path / "boxes.h5.parts" / "notes.txt").write_text("mine")
    propose(folder, tmp_path / "boxes.h5")
    assert [path.name for path in (tmp_path / "boxes.h5.parts").iterdir() if path.name != "lock"] == ["notes.txt"]


def test_weights_must_be_those_that_the_settings_name(folder, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"1")
    with pytest.raises(ConfigurationError, match="name other weights"):
        propose(folder, tmp_path / "boxes.h5", weights=tmp_path / "weights.pth")


def test_an_unfinished_file_is_called_that(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        propose(folder, tmp_path / "boxes.h5", progress=interrupt_after(0))
    with pytest.raises(BoxesFileError, match="is not finished: run the same agnet propose"):
        read_boxes(tmp_path / "boxes.h5")
