"""Measures how long the page of a diagnosis takes to be made and to be usable, and how large it is."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from detkit.builders.diagnosis import Shown, diagnose_results
from detkit.console import print_table, run_tool, say
from detkit.evaluation import DetectionTable, write_results
from detkit.files import write_json
from detkit.report.diagnosis import render

EXAMPLES = """examples:
  python benchmarks/diagnosis.py --quick
  python benchmarks/diagnosis.py --json diagnosis.json
  python benchmarks/diagnosis.py --images 5000 --detections 100000 --classes 80 --keep /tmp/pages

Images are JPEGs of soft textures. A third of the detections find an object, and of those a part has a wrong class or
place; the others lie on background. Two tables are made, so that persistence is known. With chromium, its driver and
the Python package selenium, the time from opening the page to the end of its first filtering is measured too.

The goals: at most 60 s on 2 cores, 20 MB and 2 s.
"""
GOALS = {"seconds": 60.0, "megabytes": 20.0, "seconds to the first filter": 2.0}
SIDES = 480, 640
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """What is diagnosed."""

    images: int
    detections: int
    classes: int


def write_case(case: Case, folder: Path) -> None:
    """Write val.json, first.json, second.json and the images."""
    rng = np.random.default_rng(0)
    height, width = SIDES
    owners = np.sort(rng.integers(0, case.images, 4 * case.images))
    sizes = np.exp(rng.normal(4, 0.7, (len(owners), 2))).clip(8, 400)
    corners = rng.uniform(0, 1, (len(owners), 2)) * ((width, height) - sizes)
    labels = rng.integers(0, case.classes, len(owners))
    names = [f"{image:05}.jpg" for image in range(case.images)]
    tree = {
        "images": [
            {"id": image, "file_name": name, "width": width, "height": height}
            for image, name in enumerate(names)
        ],
        "annotations": [
            {"id": row, "image_id": int(owner), "category_id": int(label), "bbox": [*corner, *size]}
            for row, (owner, label, corner, size) in enumerate(
                zip(owners, labels, corners.tolist(), sizes.tolist(), strict=True), start=1
            )
        ],
        "categories": [{"id": label, "name": f"class {label}"} for label in range(case.classes)],
    }
    write_json(folder / "val.json", tree, indent=None)
    objects = owners, np.concatenate([corners, corners + sizes], axis=1), labels
    for name, seed in (("first", 1), ("second", 2)):
        write_results(folder / f"{name}.json", _detections(case, objects, seed))
    (folder / "images").mkdir()
    for image, name in enumerate(names):
        coarse = np.random.default_rng(image).integers(0, 255, (15, 20, 3), dtype=np.uint8)
        soft = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(image).integers(0, 24, soft.shape, dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / name), cv2.add(soft, noise))


def _detections(case: Case, objects: tuple[np.ndarray, ...], seed: int) -> DetectionTable:
    rng = np.random.default_rng(seed)
    owners, boxes, labels = objects
    about = rng.choice(len(owners), case.detections // 3)
    places = boxes[about] + rng.normal(0, 0.12, (len(about), 4)) * np.tile(
        boxes[about, 2:] - boxes[about, :2], 2
    )
    named = np.where(rng.random(len(about)) < 0.85, labels[about], rng.integers(0, case.classes, len(about)))
    stray = case.detections - len(about)
    # Half of what lies on background is the same for every seed, as places that look like objects are.
    common = np.random.default_rng(9)
    corners = common.uniform(0, 0.8, (stray, 2)) * SIDES[::-1]
    corners[stray // 2 :] = rng.uniform(0, 0.8, (stray - stray // 2, 2)) * SIDES[::-1]
    sizes = common.uniform(10, 120, (stray, 2))
    found = np.concatenate([places, np.concatenate([corners, corners + sizes], axis=1)])
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    logits = np.concatenate([rng.normal(1, 1.2, len(about)), common.normal(-2, 1.2, stray)])
    return DetectionTable(
        image_ids=np.concatenate([owners[about], common.integers(0, case.images, stray)]),
        boxes=found.astype(np.float32),
        scores=(1 / (1 + np.exp(-logits))).astype(np.float32),
        category_ids=np.concatenate([named, common.integers(0, case.classes, stray)]),
    )


def timed(call: Callable[[], T]) -> tuple[T, float, float]:
    """The result, wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def seconds_to_first_filter(page: Path) -> float | None:
    """From opening to the end of a filtering; None where there is no browser."""
    driver_path, browser = shutil.which("chromedriver"), shutil.which("chromium")
    if driver_path is None or browser is None:
        return None
    try:
        from selenium import webdriver
    except ImportError:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    with tempfile.TemporaryDirectory() as profile:
        options.add_argument(f"--user-data-dir={profile}")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
        try:
            driver.get("about:blank")
            started = time.perf_counter()
            driver.get(page.as_uri())
            text = driver.execute_script(
                "const kind = document.getElementById('filter-kind'); kind.value = 'near';"
                "kind.dispatchEvent(new Event('change'));"
                "return document.getElementById('count').textContent;"
            )
            taken = time.perf_counter() - started
            assert " of " in text, text
        finally:
            driver.quit()
    return taken


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """All figures of a case whose files are written."""
    files = [folder / "first.json", folder / "second.json"]
    diagnosed, numbers_wall, numbers_cpu = timed(
        lambda: diagnose_results(folder / "val.json", files, folder / "images", Shown())
    )
    text, page_wall, page_cpu = timed(lambda: render(diagnosed))
    page = folder / "diagnosis.html"
    page.write_text(text)
    return {
        "images": case.images,
        "detections": case.detections,
        "classes": case.classes,
        "seconds of the numbers": numbers_wall,
        "seconds of the page": page_wall,
        "seconds": numbers_wall + page_wall,
        "CPU seconds": numbers_cpu + page_cpu,
        "megabytes": page.stat().st_size / 1e6,
        "errors shown": text.count('"patch":{'),
        "images shown": text.count('"undrawn":'),
        "seconds to the first filter": seconds_to_first_filter(page),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="300 images and 6,000 detections")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the page there")
    arguments = parser.parse_args()
    quick = (300, 6000) if arguments.quick else (arguments.images, arguments.detections)
    case = Case(*quick, arguments.classes)
    with tempfile.TemporaryDirectory() as name:
        say("writing annotations, detections and images")
        write_case(case, Path(name))
        figures = measure(case, Path(name))
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(name) / "diagnosis.html", arguments.keep)
    print_table("Page of a diagnosis", ("what", "figure", "goal"),
                [(what, figure, GOALS.get(what)) for what, figure in figures.items()])  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    missed = [what for what, goal in GOALS.items() if (figures[what] or 0) > goal]
    for what in missed if not arguments.quick else []:
        say(f"{what}: {figures[what]:.1f} is more than {GOALS[what]:g}")
    return int(bool(missed) and not arguments.quick)


if __name__ == "__main__":
    sys.exit(run_tool(main))
