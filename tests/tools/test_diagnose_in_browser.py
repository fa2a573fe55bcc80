"""The page of a diagnosis as a person uses it, in a browser: filter, look, mark, save, and read the marks back."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_comparison import HOSTILE
from simulated_diagnosis import simulated_diagnosis

from detkit.evaluation.error_costs import ERRORS
from detkit.evaluation.review_marks import ReviewMark, ReviewMarks, read_review_marks
from detkit.report.diagnosis import write_diagnosis
from detkit.report.diagnosis_gallery import choose_items

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed: pip install 'detkit[test]'"
)
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

SECONDS = 30
"""For what takes a fraction of one on a machine that is not busy."""
CLASSES = ("drone", HOSTILE)
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, downloads):
    driver_path, binary = shutil.which("chromedriver"), shutil.which("chromium")
    if driver_path is None or binary is None:
        pytest.skip("chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With the driver's path given, selenium does not look for one on the network.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def diagnosed():
    """With a mark of a suspect, one of a place that is no suspect here, and one of an image of the same name elsewhere.

    The digest of the first one's image is not known here, that of every other one is.
    """
    found = simulated_diagnosis(classes=CLASSES, names="{} <img src=x onerror=alert(1)>.jpg", pictures=True)
    images = found.table.image_ids[found.suspects.rows].tolist()
    digests = {image_id: f"{image_id:016x}" for image_id in images if image_id != images[1]}
    marks = [
        ReviewMark(**place_of(found, 1), score=0.5, mark="rejected", sha256="a" * 16),
        ReviewMark(file_name="elsewhere.jpg", box=[1, 2, 3, 4], category="drone", score=0.7, mark="accepted"),
        ReviewMark(**place_of(found, 4), score=0.5, mark="rejected", sha256="b" * 16),
    ]
    assert images[4] in digests
    return replace(found, marks=ReviewMarks(marks=marks), image_digests=digests)


def place_of(diagnosed, suspect: int) -> dict:
    """The keys of a mark that say where it is."""
    row, table = int(diagnosed.suspects.rows[suspect]), diagnosed.table
    name = diagnosed.image_names[int(table.image_ids[row])]
    category = CLASSES[int(table.category_ids[row]) - 1]
    return {"file_name": name, "box": table.boxes[row].tolist(), "category": category}


@pytest.fixture(scope="module")
def items(diagnosed):
    return choose_items(diagnosed)


@pytest.fixture(scope="module")
def page(diagnosed, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "diagnosis.html"
    write_diagnosis(diagnosed, path)
    return path


@pytest.fixture
def opened(browser, page):
    """The page anew, nothing remembered; afterwards it must have asked for nothing and complained of nothing."""
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri())
    yield browser
    browser.execute_script("localStorage.clear()")
    assert browser.get_log("browser") == []
    asked = [entry["message"] for entry in browser.get_log("performance")
             if '"Network.requestWillBeSent"' in entry["message"]]  # fmt: skip
    assert asked
    assert all(
        '"url":"file:///' in one or '"url":"data:' in one or '"url":"blob:null' in one for one in asked
    )


def wait(browser, condition):
    return WebDriverWait(browser, SECONDS, poll_frequency=0.05).until(lambda _: condition())


def text(browser, id_: str) -> str:
    return browser.find_element(By.ID, id_).text


def choose(browser, control: str, value: str) -> None:
    """Set a control of the filters as a person does: pick an option, or type."""
    element = browser.find_element(By.ID, f"filter-{control}")
    if element.tag_name == "select":
        options = element.find_elements(By.TAG_NAME, "option")
        next(option for option in options if option.get_attribute("textContent") == value).click()
    else:
        element.clear()
        element.send_keys(value)


def shown(browser, expected: int, of: int) -> None:
    wait(browser, lambda: text(browser, "count") == f"{expected} of {of}")
    cards = browser.find_elements(By.CSS_SELECTOR, "#items figure")
    assert len(cards) == min(expected, 42)


def test_each_filter_and_all_together_show_what_passes(opened, items, diagnosed):
    total = len(items)
    shown(opened, total, total)
    choose(opened, "class", HOSTILE)
    of_class = [item for item in items if item.category_id == 2]
    shown(opened, len(of_class), total)
    choose(opened, "kind", "background")
    background = [item for item in of_class if item.kind == "background"]
    assert 0 < len(background) < len(of_class)
    shown(opened, len(background), total)
    choose(opened, "from", "0.4")
    sure = [item for item in background if round(item.score, 4) >= 0.4]
    assert 0 < len(sure) < len(background)
    shown(opened, len(sure), total)
    choose(opened, "to", "0.6")
    between = [item for item in sure if round(item.score, 4) <= 0.6]
    assert 0 < len(between) < len(sure)
    shown(opened, len(between), total)
    name = diagnosed.image_names[between[0].image_id]
    choose(opened, "image", name.upper())
    of_image = [item for item in between if name in diagnosed.image_names[item.image_id]]
    shown(opened, len(of_image), total)
    link = opened.current_url
    opened.find_element(By.ID, "reset").click()
    shown(opened, total, total)
    opened.get("about:blank")
    opened.get(link)  # a link holds the filters
    shown(opened, len(of_image), total)
    assert opened.find_element(By.ID, "filter-image").get_property("value") == name.upper()


def test_near_misses_are_a_filter_and_more_are_shown_on_demand(opened, items):
    total = len(items)
    assert total > 100
    opened.find_element(By.ID, "more").click()
    wait(opened, lambda: len(opened.find_elements(By.CSS_SELECTOR, "#items figure")) == 84)
    choose(opened, "kind", "near misses")
    shown(opened, sum(item.near for item in items), total)
    choose(opened, "image", "no such image")
    shown(opened, 0, total)
    assert "Nothing passes these filters" in text(opened, "items")


def test_a_click_shows_the_patch_in_its_image_and_keys_lead_on(opened, items, diagnosed):
    choose(opened, "kind", "missed")
    missed = [item for item in items if item.kind == ERRORS[-1]]
    shown(opened, len(missed), len(items))
    patches = opened.find_elements(By.CSS_SELECTOR, "#items button.item")
    assert patches[1].find_element(By.TAG_NAME, "image").get_attribute("href").startswith("data:image/jpeg")
    patches[1].click()
    viewer = opened.find_element(By.ID, "viewer")
    wait(opened, viewer.is_displayed)
    item = missed[1]
    assert text(opened, "viewer-title") == f"missed: {' '.join(CLASSES[item.category_id - 1].split())}"
    assert text(opened, "position") == f"2 of {len(missed)}"
    assert diagnosed.image_names[item.image_id] in text(opened, "viewer-text")
    box = opened.find_element(By.CSS_SELECTOR, "#scene rect.box.missed.strong")
    drawn = [float(box.get_attribute(side)) for side in ("x", "y", "width", "height")]
    x0, y0, x1, y1 = item.box
    assert drawn == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=0.11)
    natural = opened.execute_async_script(
        "const image = new Image(); image.onload = () => arguments[0]([image.naturalWidth, image.naturalHeight]);"
        "image.src = document.querySelector('#scene image').getAttribute('href');"
    )
    assert natural == [256, 256]
    opened.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    wait(opened, lambda: text(opened, "position") == f"3 of {len(missed)}")
    opened.switch_to.active_element.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    wait(opened, lambda: text(opened, "position") == f"1 of {len(missed)}")
    opened.switch_to.active_element.send_keys(Keys.ESCAPE)
    wait(opened, lambda: not viewer.is_displayed())


def mark(browser, place: int, verdict: str) -> None:
    button = browser.find_elements(By.CSS_SELECTOR, f"#suspects button[data-mark={verdict}]")[place]
    button.send_keys(Keys.ENTER)  # the keyboard does


def saved(browser, downloads) -> Path:
    path = downloads / "review_marks.json"
    path.unlink(missing_ok=True)
    browser.find_element(By.ID, "save").click()
    deadline = time.monotonic() + SECONDS
    while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    return path


def test_marks_are_made_saved_and_read_back(opened, diagnosed, downloads):
    count = len(diagnosed.suspects.rows)
    assert text(opened, "marked") == f"1 of {count} marked, and 2 of other places are kept"
    mark(opened, 0, "accepted")
    mark(opened, 2, "rejected")
    mark(opened, 3, "accepted")
    mark(opened, 3, "accepted")  # once more takes it back
    wait(opened, lambda: text(opened, "marked").startswith(f"3 of {count} marked"))
    assert text(opened, "marked").endswith("not saved")
    found = read_review_marks(saved(opened, downloads)).marks
    assert found[:2] == diagnosed.marks.marks[1:]
    rows = diagnosed.suspects.rows[:3]
    assert [one.mark for one in found[2:]] == ["accepted", "rejected", "rejected"]
    for place, one in enumerate(found[2:]):
        assert {"file_name": one.file_name, "box": one.box, "category": one.category} == place_of(
            diagnosed, place
        )
        assert one.score == float(diagnosed.table.scores[rows[place]])
    digests = [diagnosed.image_digests.get(image_id) for image_id in diagnosed.table.image_ids[rows].tolist()]
    assert [one.sha256 for one in found[2:]] == [digests[0], "a" * 16, digests[2]]
    assert digests[0]
    assert "not saved" not in text(opened, "marked")


def test_saved_marks_are_there_after_a_reload_and_saved_again(opened, page, diagnosed, downloads):
    count = len(diagnosed.suspects.rows)
    mark(opened, 0, "accepted")
    mark(opened, 1, "rejected")  # takes back what the page was made with
    mark(opened, 2, "accepted")
    first = read_review_marks(saved(opened, downloads)).marks
    assert [one.mark for one in first[2:]] == ["accepted", "accepted"]
    opened.get(page.as_uri())
    wait(opened, lambda: text(opened, "marked") == f"2 of {count} marked, and 2 of other places are kept")
    mark(opened, 3, "rejected")
    assert text(opened, "marked").endswith("not saved")
    again = read_review_marks(saved(opened, downloads)).marks
    assert again[:4] == first
    assert [one.mark for one in again[2:]] == ["accepted", "accepted", "rejected"]


def test_marks_that_were_not_saved_are_asked_about_and_kept(opened, page, diagnosed):
    count = len(diagnosed.suspects.rows)
    mark(opened, 0, "accepted")
    wait(opened, lambda: "not saved" in text(opened, "marked"))
    prevented = "const event = new Event('beforeunload', {cancelable: true}); dispatchEvent(event);"
    assert opened.execute_script(f"{prevented} return event.defaultPrevented;")
    opened.get(page.as_uri())  # the driver says yes to the question
    wait(opened, lambda: text(opened, "marked").startswith(f"2 of {count} marked"))
    assert "not saved" in text(opened, "marked")


def test_a_mark_in_the_viewer_is_the_mark_in_the_list(opened):
    opened.find_elements(By.CSS_SELECTOR, "#suspects button.item")[0].click()
    viewer = opened.find_element(By.ID, "viewer")
    wait(opened, viewer.is_displayed)
    viewer.find_element(By.CSS_SELECTOR, "button[data-mark=rejected]").click()
    pressed = opened.find_elements(By.CSS_SELECTOR, "button[data-mark=rejected][aria-pressed=true]")
    assert len(pressed) == 3  # in the viewer and the list, and the one that was marked before
    opened.find_element(By.ID, "close").click()
    wait(opened, lambda: not viewer.is_displayed())
    mark(opened, 0, "rejected")
    wait(opened, lambda: text(opened, "marked").startswith("1 of"))


def test_names_that_are_markup_are_shown_as_text(opened):
    assert opened.execute_script("return document.querySelectorAll('#items script, #items img').length") == 0
    names = [one.get_attribute("textContent") for one in opened.find_elements(By.CSS_SELECTOR, "#items b")]
    assert any(HOSTILE in name for name in names)
