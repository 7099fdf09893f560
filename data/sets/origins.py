"""Where the six data sets of the paper come from."""

from __future__ import annotations

from .on_disk import Origin

FOOD101 = Origin(
    dataset="food101",
    title="Food-101",
    folder="food-101",
    archives=("food-101", "food101"),
    how="get food-101.tar.gz (5 GB) from https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/ and extract it "
    "there",
)
STANFORD40 = Origin(
    dataset="stanford40",
    title="Stanford-40",
    folder="Stanford40",
    archives=("stanford40", "stanford-40"),
    how="get Stanford40_JPEGImages.zip and Stanford40_ImageSplits.zip from "
    "http://vision.stanford.edu/Datasets/40actions.html and extract both there",
)
PPMI24 = Origin(
    dataset="ppmi24",
    title="PPMI-24",
    folder="norm_ppmi_12class",
    archives=("norm_ppmi", "ppmi"),
    how="get norm_ppmi_12class.zip, the normalised images of 12 instruments, from "
    "https://ai.stanford.edu/~bangpeng/ppmi.html and extract it there",
)
_AUC = (
    "sign the licence agreement at https://abouelnaga.io/projects/auc-distracted-driver-dataset/, send it to its "
    "makers, who answer with a link, and extract auc.distracted.driver.dataset_v2.zip there"
)
AUC_V1 = Origin(
    dataset="auc-v1",
    title="AUC-V1",
    folder="auc.distracted.driver.dataset_v2",
    archives=("auc", "v1_cam1", "distracted"),
    how=_AUC,
    fetched=False,
)
AUC_V2 = Origin(
    dataset="auc-v2",
    title="AUC-V2",
    folder="auc.distracted.driver.dataset_v2",
    archives=("auc", "v2_cam1", "distracted"),
    how=_AUC,
    fetched=False,
)
CALTECH256 = Origin(
    dataset="caltech256",
    title="Caltech-256",
    folder="256_ObjectCategories",
    archives=("256_objectcategories", "caltech256", "caltech-256", "caltech_256"),
    how="get 256_ObjectCategories.tar (1.2 GB) from https://data.caltech.edu/records/nyy15-4j048 and extract it there",
)

ORIGINS = {origin.dataset: origin for origin in (FOOD101, STANFORD40, PPMI24, AUC_V1, AUC_V2, CALTECH256)}
