"""The list of suspects: a COCO file that a person can open, kept over all rounds."""

import json
from dataclasses import replace

import pytest

from detkit.data.coco import read_coco
from detkit.errors import DataError
from detkit.mining.candidates import Candidate
from detkit.mining.quarantine import quarantined_regions, write_quarantine

SIZES = dict.fromkeys(range(4), (64, 96))


def suspect(image, box, score=0.95):
    return Candidate(image, box, score, 2, 0.0)


def test_is_a_coco_file_whose_suspects_are_ignored(make_pool, tmp_path):
    pool, path = make_pool(state="unverified"), tmp_path / "quarantine.json"
    write_quarantine(
        path, pool, [suspect(2, (10.0, 20.0, 30.0, 50.0)), suspect(0, (1.0, 2.0, 3.0, 4.0))], SIZES, 1
    )
    coco = read_coco(path)
    assert coco.file_names.tolist() == ["002.png", "000.png"]
    assert coco.boxes.tolist() == [[10, 20, 30, 50], [1, 2, 3, 4]]
    assert coco.crowd.all()
    assert coco.class_names == ("cat", "dog")
    assert [row["score"] for row in json.loads(path.read_text())["annotations"]] == [0.95, 0.95]


def test_rounds_add_up_and_one_done_again_replaces_its_own(make_pool, tmp_path):
    pool, path = make_pool(state="unverified"), tmp_path / "quarantine.json"
    assert len(quarantined_regions(path, pool, before=9)) == 0
    write_quarantine(path, pool, [suspect(2, (10.0, 20.0, 30.0, 50.0))], SIZES, 1)
    write_quarantine(path, pool, [suspect(1, (0.0, 0.0, 9.0, 9.0))], SIZES, 2)
    write_quarantine(path, pool, [suspect(2, (5.0, 5.0, 9.0, 9.0))], SIZES, 2)
    regions = quarantined_regions(path, pool, before=9)
    assert regions.image_ids.tolist() == [12, 12]
    assert regions.boxes.tolist() == [[10, 20, 30, 50], [5, 5, 9, 9]]
    assert quarantined_regions(path, pool, before=2).boxes.tolist() == [[10, 20, 30, 50]]
    assert len(read_coco(path)) == 1


def test_another_pools_image_of_the_same_name_is_another(make_pool, write_picture, tmp_path):
    pool, path = make_pool(state="unverified"), tmp_path / "quarantine.json"
    write_quarantine(path, pool, [suspect(2, (10.0, 20.0, 30.0, 50.0))], SIZES, 1)
    write_picture(pool.folder / "002.png", seed=77)
    pool = replace(pool)  # as another run finds it
    assert len(quarantined_regions(path, pool, before=2)) == 0
    write_quarantine(path, pool, [suspect(2, (5.0, 5.0, 9.0, 9.0))], SIZES, 1)
    assert quarantined_regions(path, pool, before=2).boxes.tolist() == [[5, 5, 9, 9]]
    coco = read_coco(path)
    assert coco.file_names.tolist() == ["002.png", "002.png"]
    assert coco.boxes.tolist() == [[10, 20, 30, 50], [5, 5, 9, 9]]


def test_what_is_no_list_is_refused(make_pool, tmp_path):
    path = tmp_path / "quarantine.json"
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match="is no quarantine list of format version 1"):
        quarantined_regions(path, make_pool(), before=1)
