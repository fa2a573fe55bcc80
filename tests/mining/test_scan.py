"""The scan: what is sorted out of detections, and its journal."""

import json

import numpy as np
import pytest

from detkit.errors import DataError
from detkit.evaluation.detection_errors import IgnoreRegions
from detkit.mining.decision import Decision
from detkit.mining.negative_set import MinedCrops
from detkit.mining.scan import DetectedImages, Scan, run_scan
from detkit.mining.settings import MiningSettings

TOLD = MiningSettings(least_side=4, largest=(64, 64))
OBJECTS = ((0, 1, [10, 10, 30, 30]), (0, 2, [60, 10, 80, 30]), (2, 1, [0, 0, 60, 60], True))
DETECTIONS = [
    (0, [10, 10, 30, 30], 0.9),  # correct
    (0, [11, 10, 31, 30], 0.8),  # duplicate
    (0, [60, 10, 80, 30], 0.7),  # wrong class
    (0, [20, 10, 40, 30], 0.6),  # bad localisation
    (0, [70, 10, 90, 30], 0.5),  # wrong class and bad localisation
    (0, [40, 40, 50, 50], 0.4),  # background
    (0, [80, 45, 90, 55], 0.3),  # background
    (2, [10, 10, 20, 20], 0.9),  # in a crowd
    (3, [10, 10, 20, 20], 0.05),  # background, below the threshold
]


@pytest.fixture
def make_scan(make_pool):
    def make(objects=OBJECTS, *, told=TOLD, images=5, identity=None, **others) -> Scan:
        pool = make_pool(images, objects, **others)
        return Scan(
            pool=pool,
            images=range(images),
            settings=told,
            input_size=lambda size: size,
            identity=identity or {"round": 1},
            ignore=IgnoreRegions.none(),
            known=MinedCrops.none(),
        )

    return make


def test_only_background_errors_are_candidates(make_scan, make_source, tmp_path):
    scan = make_scan()
    lines = run_scan(scan, tmp_path / "scan.jsonl", make_source(scan.pool, DETECTIONS).detect)
    assert [line.image for line in lines] == [0, 1, 2, 3, 4]
    assert lines[0].kinds == {
        "correct": 1, "duplicate": 1, "wrong class": 1, "bad localisation": 1,
        "wrong class and bad localisation": 1, "background": 2,
    }  # fmt: skip
    assert lines[0].true_positives == [0.9]
    assert [(row.box, row.score) for row in lines[0].candidates] == [
        ((40, 40, 50, 50), 0.4),
        ((80, 45, 90, 55), 0.3),
    ]
    assert lines[2].kinds == {"ignored": 1}
    assert lines[3].kinds == {"background": 1}
    assert [line.candidates for line in lines[1:]] == [[], [], [], []]


def test_the_nearest_objects_iou_is_kept(make_scan, make_source, tmp_path):
    scan = make_scan()
    detect = make_source(scan.pool, [(0, [28, 10, 48, 30], 0.5)]).detect
    (candidate,) = run_scan(scan, tmp_path / "scan.jsonl", detect)[0].candidates
    assert candidate.nearest_iou == pytest.approx(40 / 760)


def test_objects_crowds_and_ignore_regions_keep_crops_out(make_scan, make_source, tmp_path):
    scan = make_scan()
    object.__setattr__(scan, "ignore", IgnoreRegions(np.array([11]), np.array([[20.0, 0, 96, 64]])))
    detections = [
        (0, [31, 12, 39, 20], 0.5),
        (1, [5, 5, 15, 15], 0.5),
        (1, [50, 5, 60, 15], 0.5),
        (2, [62, 10, 70, 18], 0.5),
    ]
    lines = run_scan(scan, tmp_path / "scan.jsonl", make_source(scan.pool, detections).detect)
    assert lines[0].candidates[0].window[0] >= 30
    assert lines[1].candidates[0].window[2] <= 20
    assert lines[1].kinds == {"ignored": 1, "background": 1}
    assert lines[2].candidates[0].window[0] >= 60


def test_quarantine_is_for_unverified_pools(make_scan, make_source, tmp_path):
    for state, decision in (("verified-empty", Decision.PENDING), ("unverified", Decision.QUARANTINED)):
        scan = make_scan((), state=state)
        detect = make_source(scan.pool, [(1, [10, 10, 20, 20], 0.95)]).detect
        (candidate,) = run_scan(scan, tmp_path / f"{state}.jsonl", detect)[1].candidates
        assert candidate.decision == decision


def test_known_crops_are_found_by_their_source(make_scan, make_source, make_crops, tmp_path):
    scan = make_scan(())
    known = make_crops([0.5])
    known.sources[:] = ""
    object.__setattr__(known, "sources", scan.pool.files[[1]])
    object.__setattr__(known, "windows", np.array([[5, 5, 40, 40]], dtype=np.float32))
    object.__setattr__(scan, "known", known)
    detections = [(1, [10, 10, 20, 20], 0.9), (2, [10, 10, 20, 20], 0.9)]
    lines = run_scan(scan, tmp_path / "scan.jsonl", make_source(scan.pool, detections).detect)
    assert lines[1].candidates[0].decision == Decision.KNOWN
    assert lines[2].candidates[0].decision == Decision.PENDING


class InterruptedScanError(Exception):
    """Stands in for a kill."""


def interrupted_after(detect, images):
    """Detects as ``detect`` does, one image at a time, and fails after so many; counts what it is asked for."""
    asked = []

    def wrapped(wanted):
        for image in wanted:
            if len(asked) == images:
                raise InterruptedScanError
            asked.append(image)
            yield from detect([image])

    return wrapped, asked


@pytest.mark.parametrize("images", [0, 1, 3])
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_goes_on_where_it_was_interrupted(make_scan, make_source, tmp_path, images, cut):
    scan = make_scan()
    detect = make_source(scan.pool, DETECTIONS).detect
    one_by_one, _ = interrupted_after(detect, 100)
    expected = run_scan(scan, tmp_path / "whole.jsonl", one_by_one)
    journal = tmp_path / "scan.jsonl"
    failing, _ = interrupted_after(detect, images)
    with pytest.raises(InterruptedScanError):
        run_scan(scan, journal, failing)
    # A kill in the middle of writing leaves part of the last line.
    journal.write_bytes(journal.read_bytes()[: -cut or None])
    counting, asked = interrupted_after(detect, 100)
    assert run_scan(scan, journal, counting) == expected
    assert len(asked) == 5 - images + (cut > 0 and images > 0)
    assert journal.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    nothing, asked = interrupted_after(detect, 0)
    assert run_scan(scan, journal, nothing) == expected
    assert asked == []


@pytest.mark.parametrize("cut", [1, 30, 400])
def test_of_a_batch_that_was_cut_off_nothing_is_kept(make_scan, make_source, tmp_path, cut):
    """The last digits of a model depend on the batch, so that a batch is never done in part."""
    scan, journal = make_scan(), tmp_path / "scan.jsonl"
    source, asked = make_source(scan.pool, DETECTIONS), []

    def in_pairs(wanted):
        for start in range(0, len(wanted), 2):
            asked.append(list(wanted[start : start + 2]))
            yield from source.detect(wanted[start : start + 2])

    expected = run_scan(scan, journal, in_pairs)
    whole = journal.read_bytes()
    header, *lines = whole.splitlines(keepends=True)
    assert cut < len(b"".join(lines))
    journal.write_bytes(b"".join([header, *lines[:4]])[:-cut])
    del asked[:]
    assert run_scan(scan, journal, in_pairs) == expected
    assert asked[0] in ([0, 1], [2, 3])
    assert journal.read_bytes() == whole


def test_a_journal_of_another_scan_is_refused(make_scan, make_source, tmp_path):
    scan, journal = make_scan(identity={"round": 1, "checkpoint": "a"}), tmp_path / "scan.jsonl"
    detect = make_source(scan.pool, DETECTIONS).detect
    run_scan(scan, journal, detect)
    other = make_scan(identity={"round": 1, "checkpoint": "b"})
    with pytest.raises(DataError, match="was begun with checkpoint 'a', this scan has 'b'"):
        run_scan(other, journal, detect)
    header, *lines = journal.read_text().splitlines()
    journal.write_text("\n".join([json.dumps({**json.loads(header), "format_version": 2}), *lines, ""]))
    with pytest.raises(DataError, match="format version 2"):
        run_scan(scan, journal, detect)
    journal.write_text("\n".join([header, "{}", ""]))
    with pytest.raises(DataError, match="line 2: is damaged"):
        run_scan(scan, journal, detect)
    journal.write_text("something else\n")
    with pytest.raises(DataError, match="is no journal"):
        run_scan(scan, journal, detect)


def test_several_images_at_a_time(make_scan, make_source, tmp_path):
    scan = make_scan()
    source = make_source(scan.pool, DETECTIONS)
    whole = run_scan(scan, tmp_path / "whole.jsonl", source.detect)

    def in_pairs(wanted):
        for start in range(0, len(wanted), 2):
            (batch,) = source.detect(wanted[start : start + 2])
            yield DetectedImages(batch.images[::-1], batch.sizes[::-1], batch.table)

    assert run_scan(scan, tmp_path / "pairs.jsonl", in_pairs) == whole
