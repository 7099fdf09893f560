"""The page in a real browser: no error, no request, no sideways scrolling, accessible, and a cell filters."""

from pathlib import Path

import pytest
from report_runs import ANSWERS, HOSTILE, predictions_of, write_explanations, write_images, write_run

from agnet.training.report.page import write_report

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"there is no {CHROMIUM} (Debian's package chromium)")

AS_SEEN = [(1280, "light"), (390, "light"), (1280, "dark")]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=quiet)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    place = tmp_path_factory.mktemp("browser")
    names, contents = write_images(place / "insects")
    run = write_run(place / "run", predictions_of(names=names, contents=contents))
    write_explanations(run)
    answers = [(truth, 0) for truth, _ in ANSWERS]
    other = write_run(place / "other", predictions_of(answers, names=names, contents=contents))
    return write_report(run, place / "page.html", "test", root=place / "insects", against=other).file.as_uri()


@pytest.fixture
def opened(browser, address):
    """A function of width and colour scheme that opens the page; says every message, error and request."""
    contexts = []

    def open_page(width, scheme):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url[:40]))
        page.goto(address)
        return page, [one for one in said if one != address[:40] and not one.startswith("data:")]

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("width", "scheme"), AS_SEEN)
def test_it_is_quiet_fits_the_screen_and_is_accessible(opened, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page, said = opened(width, scheme)
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_cell_filters_the_mistakes_and_can_be_undone(opened):
    page, _ = opened(1280, "light")
    shown = page.locator("#wrong-cards > li:visible")
    assert shown.count() == 5
    cell = page.locator(".matrix button[data-true='0'][data-taken='1']")
    cell.focus()
    assert "2 of 4 images of ant" in page.locator("#tip").inner_text()
    page.keyboard.press("Enter")
    assert shown.count() == 2 and page.evaluate("document.activeElement.id") == "wrong-status"
    assert HOSTILE in page.locator("#wrong-status").inner_text()
    assert cell.get_attribute("aria-pressed") == "true"
    assert page.locator("#unsure-cards > li:visible").count() == 7
    page.locator("[data-reset]:visible").click()
    assert shown.count() == 5 and cell.get_attribute("aria-pressed") == "false"


def test_arrow_keys_move_in_the_matrix_and_the_tip_follows_focus_and_pointer(opened):
    page, _ = opened(1280, "light")
    cells = page.locator(".matrix button")
    assert [cells.nth(k).get_attribute("tabindex") for k in range(2)] == ["0", "-1"]
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.taken") == "1"
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    page.locator("#wrong-cards > li").first.hover()
    assert "test/11.png" in page.locator("#tip").inner_text()
