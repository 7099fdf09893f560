"""The named data sets: facts about each, and how its files become a `DatasetIndex`.

Nothing heavy is imported before a data set is opened, because the command line takes the names from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, DatasetError
from ..names import OFFICIAL, PROTOCOLS, TUTORIAL
from ..places import own_name
from ..spelling import did_you_mean
from ..text import composed, printable
from .entry import Download, Entry, Options, Rows, unlike_the_book

if TYPE_CHECKING:
    from ..index import DatasetIndex

TEST_FRACTION_OF_FOLDERS = 0.2
LEAKED = "test frames of a driver in train"  #: the kind under which AUC-V2's are counted if left out

DEMO = Entry(
    name="demo",
    title="the embedded data set",
    layout="demo:demo_rows",
    folder="agnet-demo-1",
    classes=16,
    split="30 / 12 a class, disjoint draws of views of one photograph",
    licence="public domain and free licences, as listed by scikit-image and scikit-learn for each photograph",
    size="15 MB, made on first use",
    how="nothing to download: it is made from photographs that ship with scikit-image and scikit-learn",
    flaws="a class is one photograph: it shows that everything works, not how well",
)
FOLDER = Entry(
    name="folder",
    title="a folder of class folders",
    layout="folder:folder_rows",
    split="train, val and test folders, or a fifth of each class drawn for test",
    how="name the folder of class folders with --root",
)
REID_FOLDER = Entry(
    name="reid-folder",
    title="a folder of persons",
    layout="persons:reid_folder_rows",
    split="train, query and gallery folders, of different persons in train and in the other two",
    camera=r"(?:_|/)c(\d+)(?=[s_/.-])",
    how="name the folder with train, query and gallery, each with a folder for every person, with --root",
)
CSV = Entry(
    name="csv",
    title="a list of images",
    layout="csv:csv_rows",
    split="the column split, or a fifth of each class drawn for test",
    how="name a CSV file with columns path, label and, if it is split, split with --csv",
)
FOOD101 = Entry(
    name="food101",
    title="Food-101",
    layout="layouts:food101_rows",
    folder="food-101",
    archives=("food-101", "food101"),
    classes=101,
    counts={"train": 75_750, "test": 25_250},
    split="750 / 250 a class, by its lists",
    licence="photographs of foodspotting.com's users: research within fair use; no licence of the images",
    size="5 GB",
    homepage="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    how="get food-101.tar.gz (5 GB) from https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/ and extract it "
    "there",
    downloads=(
        Download(
            "https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            bytes=4_996_278_331,
            md5="85eeb15f3717b99a5da872d97d918f87",
            sha256="d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
        ),
    ),
    flaws="labels of train were left noisy on purpose",
)
STANFORD40 = Entry(
    name="stanford40",
    title="Stanford-40",
    layout="layouts:stanford40_rows",
    folder="Stanford40",
    archives=("stanford40", "stanford-40"),
    classes=40,
    counts={"train": 4_000, "test": 5_532},
    split="100 / the rest a class, by its lists",
    licence="for research; none is stated",
    size="0.3 GB",
    homepage="http://vision.stanford.edu/Datasets/40actions.html",
    how="get Stanford40_JPEGImages.zip and Stanford40_ImageSplits.zip from "
    "http://vision.stanford.edu/Datasets/40actions.html and extract both there",
    downloads=(
        Download("http://vision.stanford.edu/Datasets/Stanford40_JPEGImages.zip"),
        Download("http://vision.stanford.edu/Datasets/Stanford40_ImageSplits.zip"),
    ),
)
PPMI24 = Entry(
    name="ppmi24",
    title="PPMI-24",
    layout="layouts:ppmi24_rows",
    folder="norm_ppmi_12class",
    archives=("norm_ppmi", "ppmi"),
    classes=24,
    counts={"train": 2_400, "test": 2_400},
    split="100 / 100 a class, by its folders",
    licence="for research; none is stated",
    size="0.1 GB",
    homepage="https://ai.stanford.edu/~bangpeng/ppmi.html",
    how="get norm_ppmi_12class.zip, the normalised images of 12 instruments, from "
    "https://ai.stanford.edu/~bangpeng/ppmi.html and extract it there",
    downloads=(
        Download("http://vision.stanford.edu/Datasets/norm_ppmi_12class.zip", md5="88118d8c6b50d72f0bb37a89269185ab"),
    ),
)
_AUC = (
    "sign the licence agreement at https://abouelnaga.io/projects/auc-distracted-driver-dataset/, send it to the "
    "authors of the data set, who answer with a link, and extract auc.distracted.driver.dataset_v2.zip there"
)
AUC_V1 = Entry(
    name="auc-v1",
    title="AUC-V1",
    layout="layouts:auc_v1_rows",
    folder="auc.distracted.driver.dataset_v2",
    archives=("auc", "v1_cam1", "distracted"),
    classes=10,
    counts={"train": 12_977, "test": 4_331},
    split="its lists: frames drawn at random",
    licence="non-commercial research, after a signed agreement",
    homepage="https://abouelnaga.io/projects/auc-distracted-driver-dataset/",
    how=_AUC,
    flaws="frames of one video are on both sides of the split: a score says little about other drivers",
)
AUC_V2 = Entry(
    name="auc-v2",
    title="AUC-V2",
    layout="layouts:auc_v2_rows",
    folder="auc.distracted.driver.dataset_v2",
    archives=("auc", "v2_cam1", "distracted"),
    classes=10,
    counts={"train": 12_555, "test": 1_923},
    split="its folders, by driver; both cameras",
    licence="non-commercial research, after a signed agreement",
    homepage="https://abouelnaga.io/projects/auc-distracted-driver-dataset/",
    how=_AUC,
    flaws="Camera 1/test/c0/322 to 415 reportedly show a driver of train; --without-leaked-frames leaves them out",
)
CALTECH256 = Entry(
    name="caltech256",
    title="Caltech-256",
    layout="layouts:caltech256_rows",
    folder="256_ObjectCategories",
    archives=("256_objectcategories", "caltech256", "caltech-256", "caltech_256"),
    classes=256,
    counts={"train": 15_360, "test": 14_420},
    split="60 of each class drawn for train by --split-seed; the rest is test; report five seeds, mean ± sd",
    licence="CC BY 4.0",
    size="1.2 GB",
    homepage="https://data.caltech.edu/records/nyy15-4j048",
    how="get 256_ObjectCategories.tar (1.2 GB) from https://data.caltech.edu/records/nyy15-4j048 and extract it there",
    downloads=(
        Download(
            "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",
            md5="67b4f42ca05d46448c6bb8ecd2220f6d",
        ),
    ),
    flaws="clutter (257) and stray files are left out; no split is official",
)

CUB200 = Entry(
    name="cub200",
    title="CUB-200-2011",
    layout="fine_grained:cub200_rows",
    folder="CUB_200_2011",
    archives=("cub_200_2011", "cub-200-2011", "cub200"),
    classes=200,
    counts={"train": 5_994, "test": 5_794},
    split="its list train_test_split.txt, about 30 / 29 a class",
    licence="see its homepage; the photographs belong to their authors",
    size="1.2 GB",
    homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    how="get CUB_200_2011.tgz (1.2 GB) from https://data.caltech.edu/records/65de6-vp158 and extract it there",
    downloads=(
        Download(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            bytes=1_150_585_339,
            md5="97eceeb196236b17998738112f37df78",
            sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
        ),
    ),
    ignored="bounding boxes, part locations, attributes and segmentations",
    flaws="some images, of test too, are also in ImageNet: scores with a backbone trained on ImageNet may be too high",
)
STANFORD_CARS = Entry(
    name="stanford-cars",
    title="Stanford Cars",
    layout="fine_grained:stanford_cars_rows",
    folder="stanford_cars",
    archives=("stanford_cars", "stanford-cars", "cars_train", "cars_test", "car_devkit", "car_ims"),
    classes=196,
    counts={"train": 8_144, "test": 8_041},
    split="its lists, about half of each class",
    licence="unclear, since the page of its authors is gone; the photographs belong to theirs",
    size="2.0 GB",
    homepage="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    how="get cars_train.tgz, cars_test.tgz, car_devkit.tgz and cars_test_annos_withlabels.mat (or car_ims.tgz and "
    "cars_annos.mat) from a copy kept by others, because https://ai.stanford.edu/~jkrause/cars/car_dataset.html no "
    "longer distributes them, and extract the archives there, beside the .mat file",
    ignored="bounding boxes",
    flaws="its authors no longer distribute it: check a copy with agnet datasets stanford-cars --verify",
)
FGVC_AIRCRAFT = Entry(
    name="fgvc-aircraft",
    title="FGVC-Aircraft",
    layout="fine_grained:fgvc_aircraft_rows",
    folder="fgvc-aircraft-2013b",
    archives=("fgvc-aircraft", "fgvc_aircraft"),
    classes=100,
    counts={"train": 3_334, "val": 3_333, "test": 3_333},
    split="its lists: a third each for train, val and test; many papers train on train and val together",
    licence="non-commercial research; the photographs belong to their authors",
    size="2.8 GB",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    how="get fgvc-aircraft-2013b.tar.gz (2.8 GB) from https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/ and extract "
    "it there",
    downloads=(
        Download(
            "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            md5="d4acdd33327262359767eeaa97a4f732",
        ),
    ),
    ignored="bounding boxes, families and manufacturers; the classes are the variants",
    flaws="the lowest 20 rows of pixels of every image are a banner with the photographer's name, which its authors "
    "ask to remove; it is kept here: crop the files to follow them",
)
STANFORD_DOGS = Entry(
    name="stanford-dogs",
    title="Stanford Dogs",
    layout="fine_grained:stanford_dogs_rows",
    folder="stanford_dogs",
    archives=("stanford_dogs", "stanford-dogs"),
    classes=120,
    counts={"train": 12_000, "test": 8_580},
    split="100 / the rest a class, by its lists",
    licence="see its homepage; its images are from ImageNet, which is for non-commercial research and education only",
    size="0.8 GB",
    homepage="http://vision.stanford.edu/aditya86/ImageNetDogs/",
    how="get images.tar (0.8 GB) and lists.tar from http://vision.stanford.edu/aditya86/ImageNetDogs/ and extract both "
    "there",
    downloads=(
        Download(
            "http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar",
            md5="1bb1f2a596ae7057f99d7d75860002ef",
            name="stanford-dogs-images.tar",
        ),
        Download(
            "http://vision.stanford.edu/aditya86/ImageNetDogs/lists.tar",
            md5="edbb9f16854ec66506b5f09b583e0656",
            name="stanford-dogs-lists.tar",
        ),
    ),
    ignored="bounding boxes",
    flaws="its images, of test too, are from ImageNet: scores with a backbone trained on ImageNet are too high",
)
OXFORD_PETS = Entry(
    name="oxford-pets",
    title="Oxford-IIIT Pet",
    layout="fine_grained:oxford_pets_rows",
    folder="oxford-iiit-pet",
    archives=("oxford-iiit-pet", "oxford_iiit_pet", "oxford-pets", "oxford_pets"),
    classes=37,
    counts={"train": 3_680, "test": 3_669},
    split="its lists trainval.txt and test.txt, about 100 / 100 a class",
    licence="CC BY-SA 4.0",
    size="0.8 GB",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    how="get images.tar.gz and annotations.tar.gz (0.8 GB) from https://www.robots.ox.ac.uk/~vgg/data/pets/ and "
    "extract both there",
    downloads=(
        Download(
            "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
            md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
            name="oxford-iiit-pet-images.tar.gz",
        ),
        Download(
            "https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",
            md5="95a8c909bbe2e81eed6a22bccdf3f68f",
            name="oxford-iiit-pet-annotations.tar.gz",
        ),
    ),
    ignored="trimaps, head boxes and species",
    flaws="images that its lists do not name are left out, and some .jpg files hold PNG or GIF images",
)

MARKET1501 = Entry(
    name="market1501",
    title="Market-1501",
    layout="persons:market1501_rows",
    folder="Market-1501-v15.09.15",
    archives=("market-1501", "market1501"),
    classes=1_502,
    counts={"train": 12_936, "query": 3_368, "gallery": 15_913},
    split="751 persons to train on, 750 others to search for, and distractors (0000)",
    camera=r"_c(\d+)s\d+_",
    licence="academic research only; the persons did not consent to more: publish no pictures of them",
    size="0.15 GB",
    how="get Market-1501-v15.09.15.zip from its authors or from a copy that they allow, and extract it there",
    ignored="hand-drawn boxes (gt_bbox, gt_query)",
    flaws="junk boxes (person -1), which its protocol takes out of every ranking, are left out",
)

CLIPS = Entry(
    name="clips",
    title="a folder or a list of clips",
    layout="clips:clips_rows",
    of_clips=True,
    split="train, val and test folders, or the column split, or a fifth of each class drawn for test; no draw divides "
    "a group",
    how="name the folder of class folders of videos, or of folders of numbered frames, with --root, or a CSV file with "
    "columns path, label and, if they are known, split and group with --csv",
)
_HMDB51_COUNTS = {"train": 3_570, "test": 1_530}
HMDB51 = Entry(
    name="hmdb51",
    title="HMDB-51",
    layout="clips:hmdb51_rows",
    folder="hmdb51",
    archives=("hmdb51", "test_train_splits"),
    classes=51,
    counts=_HMDB51_COUNTS,
    more_counts=(_HMDB51_COUNTS, _HMDB51_COUNTS),
    tutorial_counts={"train": 5_236, "val": 1_130, "test": 400},
    of_clips=True,
    split="its lists, 70 / 30 a class, in three splits: --split-number; report the mean of all; validation is cut by "
    "source",
    licence="CC BY 4.0, as its homepage says; the clips are from films and web videos",
    size="2.1 GB",
    homepage="http://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
    how="get hmdb51_org.rar (2.1 GB) and test_train_splits.rar from "
    "http://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/ and extract both there with unar, "
    "7z or unrar; then extract in it the archive of each class that hmdb51_org.rar holds",
    flaws="1,666 of its 6,766 clips are in neither train nor test of a split and left out; some sources have clips of "
    "one class in train and of another in test",
)
UCF101 = Entry(
    name="ucf101",
    title="UCF-101",
    layout="clips:ucf101_rows",
    folder="UCF-101",
    archives=("ucf101", "ucf-101"),
    classes=101,
    counts={"train": 9_537, "test": 3_783},
    more_counts=({"train": 9_586, "test": 3_734}, {"train": 9_624, "test": 3_696}),
    of_clips=True,
    split="its lists, in three splits: --split-number; report the mean of all; validation is cut by group, the clips "
    "of one video",
    licence="videos of YouTube's users, for research; see its homepage",
    size="7 GB",
    homepage="https://www.crcv.ucf.edu/data/UCF101.php",
    how="get UCF101.rar (7 GB) and UCF101TrainTestSplits-RecognitionTask.zip from "
    "https://www.crcv.ucf.edu/data/UCF101.php and extract both there (the first with unar, 7z or unrar)",
)

DRAWS = 20  # test sets of CUHK03's first protocol
_CUHK03 = Entry(
    name="",
    title="CUHK03",
    layout="",
    folder="cuhk03",
    archives=("cuhk03", "cuhk-03"),
    classes=1_467,
    camera=r"(?:^|/)(\d+)_\d+_([12])_\d+\.\w+$",
    licence="research only; the persons did not consent to more: publish no pictures of them",
    how="get cuhk03_release.zip from its authors and extract it there (its pictures are extracted from cuhk-03.mat on "
    "first use), or put images_labeled and images_detected there",
)
_CUHK03_767 = replace(
    _CUHK03,
    split="767 persons to train on, 700 to search for, by the lists of Zhong et al. (2017)",
    how=f"{_CUHK03.how}; and cuhk03_new_protocol_config_labeled.mat and cuhk03_new_protocol_config_detected.mat of the "
    "new protocol, from the repository person-re-ranking of its authors",
    flaws="its numbers do not compare with those of the protocol 1,367 / 100, nor with those of the other boxes",
)
_CUHK03_1367 = replace(
    _CUHK03,
    split="1,367 persons to train on, 100 to search for, in one image of each (single shot): one of the 20 test sets "
    "of cuhk-03.mat, by --split-seed 0 to 19; report the mean of all",
    flaws="its numbers do not compare with those of the protocol 767 / 700, nor with those of the other boxes",
)
CUHK03_767_LABELLED = replace(
    _CUHK03_767,
    name="cuhk03-767-labelled",
    title="CUHK03 (767 / 700, labelled boxes)",
    layout="cuhk03:labelled_767_rows",
    counts={"train": 7_368, "query": 1_400, "gallery": 5_328},
)
CUHK03_767_DETECTED = replace(
    _CUHK03_767,
    name="cuhk03-767-detected",
    title="CUHK03 (767 / 700, detected boxes)",
    layout="cuhk03:detected_767_rows",
    counts={"train": 7_365, "query": 1_400, "gallery": 5_332},
)
CUHK03_1367_LABELLED = replace(
    _CUHK03_1367,
    name="cuhk03-1367-labelled",
    title="CUHK03 (1,367 / 100, labelled boxes)",
    layout="cuhk03:labelled_1367_rows",
)
CUHK03_1367_DETECTED = replace(
    _CUHK03_1367,
    name="cuhk03-1367-detected",
    title="CUHK03 (1,367 / 100, detected boxes)",
    layout="cuhk03:detected_1367_rows",
)

CATALOGUE = {
    entry.name: entry
    for entry in (
        DEMO,
        FOLDER,
        CSV,
        FOOD101,
        STANFORD40,
        PPMI24,
        AUC_V1,
        AUC_V2,
        CALTECH256,
        CUB200,
        STANFORD_CARS,
        FGVC_AIRCRAFT,
        STANFORD_DOGS,
        OXFORD_PETS,
        MARKET1501,
        CUHK03_767_LABELLED,
        CUHK03_767_DETECTED,
        CUHK03_1367_LABELLED,
        CUHK03_1367_DETECTED,
        REID_FOLDER,
        HMDB51,
        UCF101,
        CLIPS,
    )
}


def open_dataset(
    dataset: str,
    root: str | Path,
    *,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    limit: int | None = None,
    list_file: str | Path | None = None,
    leaked_frames: bool = True,
    split_number: int | None = None,
    protocol: str = OFFICIAL,
    group_pattern: str = "",
    any_counts: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> DatasetIndex:
    """Open a data set and build its index. If it has no validation split, one is cut from train.

    A lone ``val`` is used as the held-out test split, and reported as such.

    Args:
        dataset: Key of `CATALOGUE`.
        root: Folder that holds the data set (for ``folder``, the folder of class folders itself; for ``csv``, the one
            that the paths in the list are relative to).
        val_fraction: Share of each class's training images that becomes validation, or for retrieval of the training
            persons, with all their images; 0 cuts none. Of clips with known groups, whole groups are cut.
        split_seed: Seed of that cut, of Caltech-256's draw, and of the test split if the layout has none; for the
            protocol 1,367 / 100 of CUHK03 also the number of the test set, 0 to 19.
        limit: Maximum number of images or clips.
        list_file: List of images for ``csv``, or of clips for ``clips``.
        leaked_frames: Whether to keep AUC-V2's test frames that reportedly show a driver of train.
        split_number: Number of the official split, from 1, of a data set that has several: ``hmdb51``, ``ucf101``.
        protocol: One of `names.PROTOCOLS`. ``tutorial`` reproduces the leak of a tutorial on ``hmdb51``: it also trains
            on the clips in neither split, and draws validation and test from the test clips.
        group_pattern: Regular expression whose first group names the group of a clip from its path, for class folders
            of ``clips``.
        any_counts: Whether to accept a named data set whose numbers of images or classes differ from the published
            counts.
        say: Function called with a sentence: warnings, and before work that takes minutes, the extraction of CUHK03's
            pictures.

    Raises: `DatasetError`, which names what was searched for, where, and how to get it, or the counts expected and
        found.
    """
    from ..index import build_index
    from .on_disk import to_be_whole

    if dataset not in CATALOGUE:
        raise ConfigurationError(
            f"unknown data set {dataset!r}; known: {', '.join(CATALOGUE)}{did_you_mean(dataset, CATALOGUE)}"
        )
    root = Path(root)
    entry = CATALOGUE[dataset]
    options = Options(
        split_seed,
        None if list_file is None else Path(list_file),
        leaked_frames,
        split_number=split_number or 1,
        protocol=protocol,
        group_pattern=group_pattern,
        say=say,
    )
    _check_options(entry, options, split_number)
    left_out: Counter[str] = Counter()
    rows = entry.rows(root, left_out, options)
    difference = difference_from_book(entry, rows, left_out, options)
    if difference and not any_counts:
        remedy = to_be_whole(entry, root) if entry.archives else "download it again"
        raise DatasetError(
            f"{entry.title} under {root} is not as distributed: {difference}; {remedy}, or, if the copy was changed on "
            "purpose, add --any-counts"
        )
    # Otherwise, a lone val would serve for both model selection and the final score.
    val_is_test = {split for _, _, split in rows} == {"train", "val"}
    if val_is_test:
        rows = [(name, label, "test" if split == "val" else split) for name, label, split in rows]
    index = build_index(dataset, root, rows, entry.of_clips)
    if options.groups:
        index = replace(index, groups=tuple(options.groups.get(name, "") for name in index.names))
        if entry.is_own:
            _warn_of_divided_groups(index, say)
    index = _with_splits(index, entry, val_fraction, split_seed, limit)
    opened_with: dict[str, object] = {"val_fraction": val_fraction, "split_seed": split_seed, "limit": limit}
    if options.list_file:
        opened_with["list_file"] = options.list_file.name
    if dataset == "auc-v2":
        opened_with["leaked_frames"] = leaked_frames
    if entry.official_splits > 1:
        opened_with["split_number"] = options.split_number
    if protocol != OFFICIAL:
        opened_with["protocol"] = protocol
    if group_pattern:
        opened_with["group_pattern"] = group_pattern
    if difference:
        opened_with["not_as_distributed"] = difference
    return replace(
        index,
        opened_with=opened_with,
        left_out=dict(left_out),
        title=_title(dataset, root, options),
        val_is_test=val_is_test,
    )


def _check_options(entry: Entry, options: Options, split_number: int | None) -> None:
    """Raises: `ConfigurationError` for an option that this data set does not have."""
    if options.protocol not in PROTOCOLS:
        raise ConfigurationError(f"unknown protocol {options.protocol!r}; known: {', '.join(PROTOCOLS)}")
    if options.protocol == TUTORIAL and entry.tutorial_counts is None:
        raise ConfigurationError(f"the data set {entry.name} has no tutorial's protocol; hmdb51 has one")
    if split_number is not None and entry.official_splits == 1:
        raise ConfigurationError(f"the data set {entry.name} has no numbered splits; hmdb51 and ucf101 have three")
    if not 1 <= options.split_number <= entry.official_splits:
        raise ConfigurationError(
            f"the split number of {entry.name} is 1 to {entry.official_splits}, got {options.split_number}"
        )
    if options.group_pattern and (entry.name != CLIPS.name or options.list_file):
        raise ConfigurationError(
            "a group pattern is for class folders of the data set clips; in a list, the column group names groups"
        )


def _warn_of_divided_groups(index: DatasetIndex, say: Callable[[str], None]) -> None:
    from ..index import divided_groups

    if divided := divided_groups(index):
        known = set(index.groups).difference([""])
        say(
            f"Warning: {len(divided):,} of the {len(known):,} groups are in two splits or more, first "
            f"{printable(min(divided))!r}: results on test say little about new groups"
        )


def _with_splits(
    index: DatasetIndex, entry: Entry, val_fraction: float, split_seed: int, limit: int | None
) -> DatasetIndex:
    """The index with the splits that its layout does not have, limited; groups and persons are cut whole."""
    from ..index import cut_from_train, cut_groups_from_train, cut_persons_from_train, limit_index, trained_first

    cut = cut_groups_from_train if index.groups else cut_from_train
    if entry.camera:
        index = _with_persons(index, entry)
    elif not (index.splits == "test").any():
        index = cut(index, TEST_FRACTION_OF_FOLDERS, "test", split_seed)
    if not (index.splits == "val").any():
        if entry.camera:
            index = cut_persons_from_train(index, val_fraction, split_seed)
        else:
            index = cut(index, val_fraction, "val", split_seed)
    if limit is not None:
        index = limit_index(index, limit)
    return trained_first(index) if entry.camera else index


def _with_persons(index: DatasetIndex, entry: Entry) -> DatasetIndex:
    """The index of a data set for retrieval with the person and, where paths name it, the camera of each image."""
    cameras = tuple(map(entry.camera_of, index.names))
    persons = tuple(index.classes[label] for label in index.labels)
    return replace(index, groups=persons, cameras=cameras if any(cameras) else ())


def _title(dataset: str, root: Path, options: Options) -> str:
    """The title of a data set: for the user's own data, the name of the folder or list; otherwise the catalogue's
    name, with the number of the split or test set if there are several, and a protocol that leaks.
    """
    of_list = options.list_file.stem if options.list_file else ""
    own = {"folder": own_name(root), "reid-folder": own_name(root), "csv": of_list}
    own |= {
        entry.name: f"{entry.name}, test set {options.split_seed}"
        for entry in (CUHK03_1367_LABELLED, CUHK03_1367_DETECTED)
    }
    own |= {CLIPS.name: of_list or own_name(root)}
    own |= {entry.name: f"{entry.name}, split {options.split_number}" for entry in (HMDB51, UCF101)}
    leak = ", tutorial's protocol (test clips leak)" if options.protocol == TUTORIAL else ""
    return printable(composed(own.get(dataset, "") or dataset)) + leak


def difference_from_book(entry: Entry, rows: Rows, left_out: Counter[str], options: Options) -> str:
    """Describe how an entry's rows differ from the published counts, before validation is cut; empty if they agree.

    AUC-V2's frames of a driver in train count as present if they are left out on purpose.
    """
    found = Counter(split for _, _, split in rows)
    found["test"] += left_out[LEAKED]
    counts = entry.counts_of(options.split_number, options.protocol)
    classes = len({label for _, label, _ in rows})
    return ", ".join(unlike_the_book(classes, found, entry.classes, counts, entry.of_clips))
