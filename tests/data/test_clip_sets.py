"""Data sets of clips: layouts, official lists, groups that no split divides."""

import re
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from agnet.data.errors import ConfigurationError, DatasetError
from agnet.data.index import build_index, cut_groups_from_train, divided_groups, limit_index
from agnet.data.sets.catalogue import CATALOGUE, open_dataset
from agnet.data.sets.clips import LEAK, NEITHER

WAVE = (
    ("SchoolRules_wave_f_nm_np1_ba_med_0.avi", 1),
    ("TrumanShow_wave_f_nm_np1_fr_med_26.avi", 0),
    ("RATRACE_wave_f_nm_np1_fr_goo_37.avi", 2),
    ("RATRACE_wave_u_cm_np1_fr_goo_38.avi", 2),
)
EXERCISE = (
    ("50_FIRST_sword_sword_exercise_f_cm_np2_le_bad_0.avi", 1),
    ("50_FIRST_sword_sword_exercise_f_cm_np2_le_bad_1.avi", 1),
    ("Zorro_1_sword_exercise_h_cm_np10_ri_goo_2.avi", 1),
    ("Zorro_2_sword_exercise_l_cm_np2_ri_goo_2.avi", 2),
)
HMDB = {"wave": WAVE, "sword_exercise": EXERCISE}


@pytest.fixture
def hmdb(tmp_path, monkeypatch):
    """HMDB-51's layout with two classes; split 2 swaps train and test."""
    lists = tmp_path / "hmdb51/testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for label, clips in HMDB.items():
        (tmp_path / "hmdb51" / label).mkdir()
        for name, _ in clips:
            (tmp_path / "hmdb51" / label / name).touch()
        for split in (1, 2):
            lines = [f"{name} {(3 - number) % 3 if split == 2 else number} \n" for name, number in clips]
            (lists / f"{label}_test_split{split}.txt").write_text("".join(lines))
    counts = {"train": 4, "test": 3}
    book = {"counts": counts, "more_counts": ({"train": 3, "test": 4}, counts), "classes": 2}
    monkeypatch.setitem(CATALOGUE, "hmdb51", replace(CATALOGUE["hmdb51"], **book))
    return tmp_path


def split_of(index):
    return {name.rpartition("/")[2]: str(split) for name, split in zip(index.names, index.splits, strict=True)}


def test_hmdb_is_read_by_its_lists_and_clips_in_neither_split_are_left_out_and_counted(hmdb):
    index = open_dataset("hmdb51", hmdb, val_fraction=0)
    names = {0: None, 1: "train", 2: "test"}
    assert split_of(index) == {name: names[number] for clips in HMDB.values() for name, number in clips if number}
    assert index.left_out == {NEITHER: 1} and index.of_clips and index.title == "hmdb51, split 1"
    source = dict(zip(split_of(index), index.groups, strict=True))
    assert [source[name] for name, _ in EXERCISE] == ["50_FIRST_sword", "50_FIRST_sword", "Zorro_1", "Zorro_2"]
    second = open_dataset("hmdb51", hmdb, val_fraction=0, split_number=2)
    assert second.opened_with["split_number"] == 2
    swapped = {"train": "test", "test": "train"}
    assert split_of(second) == {name: swapped[split] for name, split in split_of(index).items()}


def test_validation_of_hmdb_is_cut_by_source_and_a_class_of_one_source_gives_none(hmdb):
    for seed in range(4):
        index = open_dataset("hmdb51", hmdb, val_fraction=0.3, split_seed=seed)
        val = {name for name, split in split_of(index).items() if split == "val"}
        assert val in ({EXERCISE[0][0], EXERCISE[1][0]}, {EXERCISE[2][0]})


def test_the_tutorials_protocol_is_reproduced_and_marked(hmdb, monkeypatch):
    told = []
    book = replace(CATALOGUE["hmdb51"], tutorial_counts={"train": 5, "val": 2, "test": 1})
    monkeypatch.setitem(CATALOGUE, "hmdb51", book)
    index = open_dataset("hmdb51", hmdb, protocol="tutorial", say=told.append)
    splits = split_of(index)
    for name, number in (clip for clips in HMDB.values() for clip in clips):
        assert (splits[name] == "train") == (number in (0, 1)), name
    assert told == [LEAK] and index.title.endswith("tutorial's protocol (test clips leak)")
    assert index.opened_with["protocol"] == "tutorial" and not index.left_out
    drawn = {open_dataset("hmdb51", hmdb, protocol="tutorial", split_seed=seed).splits.tobytes() for seed in range(9)}
    assert len(drawn) > 1


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda root: (root / "hmdb51/wave" / WAVE[0][0]).unlink(), "1 of the 7 clips that its lists name do not"),
        (lambda root: (root / "hmdb51/wave").rename(root / "hmdb51/wav"), "3 of the 7 clips that its lists name do"),
        (lambda root: [path.unlink() for path in root.rglob("*_split1.txt")], "no list <class>_test_split1.txt in"),
        (lambda root: (root / "hmdb51/testTrainMulti_7030_splits/wave_test_split1.txt").unlink(), "1 class instead"),
        (lambda root: (root / "hmdb51/testTrainMulti_7030_splits").rename(root / "lists"), "extract both there with"),
        (
            lambda root: (root / "hmdb51/testTrainMulti_7030_splits/wave_test_split1.txt").write_text("a.avi 1\n"),
            "expected lines like 'Film_wave_f_cm_np1_fr_med_0.avi 1', got 'a.avi 1'",
        ),
    ],
)
def test_an_incomplete_hmdb_is_refused_with_what_is_missing(hmdb, harm, message):
    harm(hmdb)
    with pytest.raises(DatasetError, match=re.escape(message)):
        open_dataset("hmdb51", hmdb)


UCF = {
    "trainlist01": "Archery/v_Archery_g08_c01.avi 1|Archery/v_Archery_g08_c02.avi 1|Archery/v_Archery_g09_c01.avi 1|"
    "HandstandPushups/v_HandStandPushups_g08_c01.avi 2|HandstandPushups/v_HandStandPushups_g10_c01.avi 2",
    "testlist01": "Archery/v_Archery_g01_c01.avi|HandstandPushups/v_HandStandPushups_g01_c01.avi",
    "classInd": "1 Archery|2 HandstandPushups",
}


@pytest.fixture
def ucf(tmp_path):
    """UCF-101's layout with two classes; the files of one are spelt as its folder."""
    (tmp_path / "ucfTrainTestlist").mkdir()
    for name, text in UCF.items():
        (tmp_path / f"ucfTrainTestlist/{name}.txt").write_bytes(text.replace("|", "\r\n").encode() + b"\r\n\r\n")
        for line in text.split("|") if name != "classInd" else []:
            file = tmp_path / "UCF-101" / line.split()[0].replace("HandStand", "Handstand")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return tmp_path


def test_ucf_is_read_by_its_lists_and_cut_by_group(ucf):
    index = open_dataset("ucf101", ucf, any_counts=True, val_fraction=0.5)
    assert Counter(index.splits.tolist()) == {"train": 3, "val": 2, "test": 2} or index.counts("val").tolist() == [2, 1]
    assert index.classes == ("Archery", "HandstandPushups") and not index.left_out
    assert set(index.groups) >= {"v_Archery_g08", "v_HandStandPushups_g10"} and not divided_groups(index)
    assert not set(index.names) - {path.relative_to(ucf).as_posix() for path in ucf.rglob("*.avi")}
    with pytest.raises(DatasetError, match=re.escape("5 train clips instead of 9,586")):
        (ucf / "ucfTrainTestlist/trainlist01.txt").rename(ucf / "ucfTrainTestlist/trainlist02.txt")
        (ucf / "ucfTrainTestlist/testlist01.txt").rename(ucf / "ucfTrainTestlist/testlist02.txt")
        open_dataset("ucf101", ucf, split_number=2)


def test_a_label_that_contradicts_ucfs_list_of_classes_is_refused(ucf):
    (ucf / "ucfTrainTestlist/classInd.txt").write_text("1 HandstandPushups\n2 Archery\n")
    with pytest.raises(DatasetError, match=r"trainlist01.txt: expected lines like .*, got 'Archery/v_Archery_g08_c01"):
        open_dataset("ucf101", ucf, any_counts=True)


@pytest.fixture
def clips(tmp_path):
    """Class folders of a video and a folder of frames by each of three persons."""
    for label in ("jump", "wave"):
        for person in "abc":
            frames = tmp_path / label / f"{person}_{label}_2"
            frames.mkdir(parents=True)
            (tmp_path / label / f"{person}_{label}_1.mp4").touch()
            for number in (1, 2):
                cv2.imwrite(str(frames / f"{number}.png"), np.zeros((8, 8, 3), np.uint8))
    return tmp_path


PERSON = r"([^/_]+)_[^/]*$"


def test_class_folders_hold_videos_and_folders_of_frames(clips):
    (clips / "wave/notes.txt").touch()
    (clips / "wave/.hidden").mkdir()
    index = open_dataset("clips", clips, val_fraction=0)
    assert len(index) == 12 and {"jump/a_jump_1.mp4", "jump/a_jump_2"} <= set(index.names) and index.of_clips
    assert index.left_out == {".txt": 1, "folder .hidden": 1} and not index.groups and index.title == clips.name


def test_groups_named_by_a_pattern_are_not_divided(clips):
    index = open_dataset("clips", clips, group_pattern=PERSON)
    of = {
        split: {g for g, its in zip(index.groups, index.splits, strict=True) if its == split}
        for split in ("train", "val", "test")
    }
    assert sorted(map(len, of.values())) == [1, 1, 1] and not divided_groups(index)
    assert index.opened_with["group_pattern"] == PERSON


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("(a", ConfigurationError, "is not a regular expression"),
        ("a_", ConfigurationError, "needs parentheses"),
        ("/(a)_", DatasetError, "names no group of 8 of the 12 clips, first 'jump/b_jump_1.mp4'"),
    ],
)
def test_a_useless_group_pattern_is_refused(clips, pattern, error, message):
    with pytest.raises(error, match=re.escape(message)):
        open_dataset("clips", clips, group_pattern=pattern)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda root: (root / "wave/0.png").touch(),
            "wave holds 1 image beside videos, first '0.png'; put the frames",
        ),
        (lambda root: (root / "wave/a_wave_2/b.avi").touch(), "a_wave_2 holds 2 images beside videos"),
        (lambda root: (root / "wave/empty").mkdir(), "wave/empty holds neither frames nor videos"),
        (lambda root: (root / "zero").mkdir(), "the class folder {root}/zero holds no clips"),
    ],
)
def test_a_folder_that_is_not_clear_is_refused(clips, harm, message):
    harm(clips)
    with pytest.raises(DatasetError, match=re.escape(message.format(root=clips))):
        open_dataset("clips", clips)


def test_a_folder_of_videos_opened_as_images_says_what_to_do(clip_folder):
    with pytest.raises(DatasetError, match=r"no images that can be read here, but 3 \.mp4; for videos, use --dataset"):
        open_dataset("folder", clip_folder)


def listed(root, lines, **options):
    (root / "list.csv").write_text("\n".join(lines))
    return open_dataset("clips", root, list_file=root / "list.csv", **options)


def test_a_list_names_videos_and_folders_of_frames_with_groups(clips):
    lines = ["path,label,split,group", "jump/a_jump_1.mp4,up,train,a", "jump/b_jump_2,up,train,b"]
    told = []
    more = [*lines, "wave/b_wave_1.mp4,hi,train,", "wave/b_wave_2/,hi,test,c"]
    index = listed(clips, more, val_fraction=0.5, say=told.append)
    assert index.names[-1] == "wave/b_wave_2" and index.groups == ("a", "b", "", "c") and not told
    assert Counter(index.splits.tolist()) == {"train": 2, "val": 1, "test": 1}
    index = listed(clips, [*more[:-1], "wave/b_wave_2,hi,test,b"], val_fraction=0, say=told.append)
    assert divided_groups(index) == {"b": {"train": 1, "test": 1}}
    assert len(told) == 1 and "1 of the 2 groups are in two splits or more, first 'b'" in told[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("jump/a_jump_2/1.png,up", "line 2: 'jump/a_jump_2/1.png' is an image; expected a video or a folder"),
        ("jump,up", "line 2: the folder 'jump' holds no frames"),
        ("jump/z.mp4,up", "1 of the 1 clips that"),
    ],
)
def test_a_row_that_is_no_clip_is_named_with_its_line(clips, row, message):
    with pytest.raises(DatasetError, match=re.escape(message)):
        listed(clips, ["path,label", row])


@pytest.mark.parametrize("seed", range(3))
def test_a_cut_takes_whole_groups_near_the_share_of_every_class_and_empties_none(tmp_path, seed):
    generator = np.random.default_rng(seed)
    rows, groups = [], []
    for number in range(400):
        group = int(generator.integers(60))
        label = "solo" if group == 0 else "abc"[(group + (generator.random() < 0.2)) % 3]
        rows.append((f"{number}.mp4", label, "train" if number % 5 else "test"))
        groups.append(f"g{group}" if number % 50 else "")
    index = replace(build_index("clips", tmp_path, rows, of_clips=True), groups=tuple(groups))
    cut = cut_groups_from_train(index, 0.2, "val", seed)
    sides = {}
    for name, group, before, after in zip(index.names, groups, index.splits, cut.splits, strict=True):
        assert (before == after) if before == "test" else after in ("train", "val")
        if before == "train":
            sides.setdefault(group or name, set()).add(str(after))
    assert all(len(side) == 1 for side in sides.values())
    assert (cut.counts("train") > 0).all() and cut.counts("val")[index.classes.index("solo")] == 0
    share = cut.counts("val")[:3] / index.counts("train")[:3]
    assert (abs(share - 0.2) < 0.06).all(), share
    order = generator.permutation(len(index))
    rows, groups = [rows[row] for row in order], [groups[row] for row in order]
    shuffled = replace(build_index("clips", tmp_path, rows, of_clips=True), groups=tuple(groups))
    again = cut_groups_from_train(shuffled, 0.2, "val", seed)
    assert dict(zip(again.names, again.splits, strict=True)) == dict(zip(cut.names, cut.splits, strict=True))
    small = limit_index(cut, 50)
    assert len(small) == 50 and len(small.groups) == 50


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("clips", {"split_number": 1}, "the data set clips has no numbered splits"),
        ("ucf101", {"split_number": 4}, "the split number of ucf101 is 1 to 3, got 4"),
        ("ucf101", {"protocol": "tutorial"}, "the data set ucf101 has no tutorial's protocol"),
        ("folder", {"group_pattern": "(a)"}, "a group pattern is for class folders of the data set clips"),
    ],
)
def test_an_option_of_another_data_set_is_refused(tmp_path, dataset, options, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        open_dataset(dataset, tmp_path, **options)
