"""The pages in a browser: no errors, nothing that axe finds fault with, no scrolling sideways, filters and sliders.

They are skipped where Chromium or the packages of the extra "browser" are missing; `make test-site` installs them.
"""

import os
import re
import shutil

import pytest

from conslaw.paper import site
from conslaw.paper.notebooks import notebook_names

sync_api = pytest.importorskip("playwright.sync_api", reason="needs pip install 'conslaw[browser]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs pip install 'conslaw[browser]'")

FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        own = os.environ.get("CHROMIUM") or shutil.which("chromium")
        try:
            browser = playwright.chromium.launch(executable_path=own, args=FLAGS.split())
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: {error}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    site.build(folder)
    return folder


@pytest.fixture
def visit(browser, folder):
    """Return a function that opens a page; whatever it complains of fails the test."""
    complaints, opened = [], []

    def visit(name, **options):
        context = browser.new_context(**options)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto((folder / name).as_uri())
        opened.append(context)
        return page

    yield visit
    for context in opened:
        context.close()
    assert not complaints


@pytest.mark.parametrize("name", ["index", *site.EXTRA, *notebook_names()])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_in_light_and_dark_and_on_a_phone(name, scheme, visit):
    page = visit(f"{name}.html", color_scheme=scheme, viewport={"width": 1280, "height": 900})
    found = axe.Axe().run(page).response["violations"]
    assert not [f"{fault['id']}: {fault['nodes'][0]['html'][:200]}" for fault in found]
    for width in (1280, 420):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(f"document.documentElement.scrollWidth <= {width}", timeout=5000)


def test_links_lead_to_pages(visit):
    page = visit("index.html")
    page.locator("nav summary").first.click()
    page.get_by_role("link", name="The ledger").click()
    assert page.url.endswith("ledger.html")
    page.locator("#T02\\.step").get_by_role("link", name="fig1b_drift_scaling").click()
    assert page.title().startswith("Figure 1b")
    page.locator("nav.contents a").last.click()
    assert page.evaluate("document.querySelector(':target').tagName") == "H2"


def test_filters_of_the_ledger(visit):
    page = visit("ledger.html")
    every = page.locator("article").count()
    shown = page.locator("article:visible")
    assert shown.count() == every
    page.get_by_label("verdict").select_option("fails")
    fails = shown.count()
    assert 0 < fails < every
    assert page.locator("article:visible .verdict.fails").count() == fails
    assert page.locator("output").inner_text() == f"{fails} of {every} claims"
    page.get_by_label("search").fill("T06 bound")
    assert [article.get_attribute("id") for article in shown.all()] == ["T06.bound"]
    page.reload()  # the address has kept the choice
    assert [article.get_attribute("id") for article in shown.all()] == ["T06.bound"]
    page.get_by_label("search").fill("nothing of the kind")
    assert shown.count() == 0


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def test_a_window_gives_back_its_exponent(visit):
    page = visit("explore.html")
    fit = page.locator("#fit")
    whole = numbers(fit.inner_text())[0]
    page.get_by_role("slider", name="from η").fill("6")
    page.get_by_role("slider", name="to η").fill("14")
    inside, r_squared = numbers(fit.inner_text())[:2]
    assert 0.95 < inside < 1.1 < whole < 1.3
    assert r_squared > 0.999
    page.get_by_role("slider", name="to η").focus()
    before = fit.inner_text()
    page.keyboard.press("ArrowRight")
    assert fit.inner_text() != before
    box = page.locator("#exponent .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 100, steps=5)
    page.mouse.up()
    page.wait_for_function(f"document.querySelector('#fit').textContent.includes('α = {whole}')", timeout=5000)


def test_the_slider_of_the_learning_rate(visit):
    page = visit("explore.html")
    text = page.locator("#run")
    page.get_by_role("slider", name="learning rate").fill("0")
    assert text.inner_text().startswith("At η = 0.0001 ")
    small = text.inner_text()
    page.get_by_role("slider", name="width").fill("0")
    assert text.inner_text() != small
    page.get_by_label("loss").select_option("mse")
    page.get_by_role("slider", name="width").fill("3")
    page.get_by_role("slider", name="learning rate").fill("20")
    assert text.inner_text() == "At η = 1 this network blows up."


def test_the_prediction_comes_and_goes_with_the_run(visit):
    page = visit("explore.html")
    picture, text = page.locator("#predicted"), page.locator("#prediction")
    lines = picture.locator(".scatterlayer .trace path.js-line")
    assert not picture.is_visible()
    page.get_by_role("button", name="m = 32, η = 1").click()
    assert picture.is_visible()
    assert lines.count() == 2
    assert picture.locator(".annotation-text").all_text_contents() == ["measured (broad)", "predicted (thin)"]
    measured, predicted = numbers(text.inner_text())[:2]
    assert predicted == pytest.approx(measured, rel=0.1)
    before = lines.nth(1).get_attribute("d")
    rate = page.get_by_role("slider", name="learning rate")
    assert rate.input_value() == rate.get_attribute("max")
    rate.focus()
    page.keyboard.press("ArrowLeft")  # to η = 0.63, which ends below the edge
    assert not picture.is_visible()
    assert "is not among them" in text.inner_text()
    page.get_by_role("slider", name="width").fill("2")  # m = 64 stays there
    assert picture.is_visible()
    assert lines.nth(1).get_attribute("d") != before
    page.get_by_label("loss").select_option("cross_entropy")
    assert not picture.is_visible()
