import csv
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bokeh.models import Span
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import worlds
from test_bench import everything
from tlstm.records import measurement as bench_store
from tlstm.records import table as tables
from tlstm.records.store import append
from tlstm.report import embedded, every_run, main, memory_cells, read, render, side_by_side
from tlstm.reporting import charts, rows
from worlds import PUBLISHED

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
PIXEL = b"\x89PNG\r\n\x1a\n and no more"


class Page(HTMLParser):
    """The elements of a page and the text of its visible part."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] not in ("script", "style"):
            self.words.append(data)

    def of(self, wanted: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == wanted]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of two tasks at the paper's scale, smoke runs of addition and of digits."""
    directory = tmp_path_factory.mktemp("results")
    shutil.copy(PUBLISHED, directory)
    for seed, task in itertools.product((0, 1), ("addition", "wikipedia")):
        append(worlds.world(seed=seed, only=task), directory)
    small = {"scale": "smoke", "channels": 24}
    addition, digits = (worlds.world(only=task, **small) for task in ("addition", "mnist"))
    append([run for run in addition if run.depth < 7], directory)
    append([run.model_copy(update={"task": "digits"}) for run in digits], directory)
    bench_store.append([each for each in everything() if each.case.task == "addition"], directory)
    (directory / "fig6").mkdir()
    (directory / "fig6" / "smoke-addition.png").write_bytes(PIXEL)
    return directory


@pytest.fixture(scope="module")
def content(results: Path) -> str:
    assert main(["--results", str(results)]) == 0
    return (results / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(content: str) -> Page:
    return Page(content)


# The file


def test_nothing_on_the_page_is_fetched(page, content):
    fetched = [
        (tag, value)
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "srcset", "data", "poster", "action") or (name, tag) == ("href", "link")
    ]
    assert fetched
    assert {tag for tag, _ in fetched} == {"img"}
    assert all(str(value).startswith("data:") for _, value in fetched)
    styles = "".join(re.findall(r"<style>(.*?)</style>", content, flags=re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    (policy,) = [each for each in page.of("meta") if "http-equiv" in each]
    assert str(policy["content"]).startswith("default-src 'none';")


def test_the_same_records_give_the_same_bytes(results, content, tmp_path):
    output = tmp_path / "again.html"
    subprocess.run(
        [sys.executable, "-m", "tlstm.report", "--results", str(results), "--output", str(output)],
        env=os.environ | {"PYTHONHASHSEED": "1", "TZ": "UTC+1"},
        check=True,
        timeout=300,
    )
    assert output.read_text(encoding="utf-8") == content
    assert len(content) < 6_000_000


def test_every_claim_is_there_with_its_verdict(page, content):
    cards = re.findall(r'<article class="card" id="claim-(\d)">(.*?)</article>', content, re.DOTALL)
    assert [number for number, _ in cards] == list("12345678")
    verdicts = [re.findall(r'<span class="badge ([a-z-]+)">', card) for _, card in cards]
    assert verdicts == [["undecided"]] * 6 + [["holds"]] + [["undecided"]]  # two tasks of five ran
    assert "Of 8 claims, holds: 1, does not hold: 0, undecided: 7." in page.text


def test_what_is_not_at_the_papers_scale_says_so(content):
    groups = re.findall(
        r'<section data-filtered data-scale="(\w+)" data-task="(\w+)">(.*?)</section>',
        content,
        re.DOTALL,
    )
    assert len(groups) == 4
    for scale, task, group in groups:
        marks = re.findall(r'<span class="small-scale">(.*?)</span>', group)
        pictures = group.count("<figure")
        assert pictures >= 4
        said = f"{scale} scale, stand-in data" if task == "digits" else f"{scale} scale"
        assert marks == ([] if scale == "paper" else [said] * (pictures + 1))


def test_published_numbers_are_the_files_and_measured_ones_are_in_their_rows(content):
    with PUBLISHED.open() as file:
        expected = [(row["model"], row["value"]) for row in csv.DictReader(file)]
    expected = [(model, value) for model, value in expected if model in rows.COUNTERPARTS]
    section = content.partition('<section id="published">')[2].partition("</section>")[0]
    found = [
        re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", section)
    ]
    for (model, value), (name, _, published, *_) in zip(expected, found, strict=True):
        assert name.startswith(model)
        assert published.replace("&gt;", ">").startswith(value)
    assert sum("reproduced" in row[6] or "better" in row[6] for row in found) >= 2


def test_it_opens_with_the_papers_scale_alone(page, results, tmp_path):
    def checked(page: Page) -> dict[str, bool]:
        boxes = [box for box in page.of("input") if box["value"] in ("paper", "smoke")]
        return {str(box["value"]): "checked" in box for box in boxes}

    assert checked(page) == {"paper": True, "smoke": False}
    shutil.copy(PUBLISHED, tmp_path)
    append([worlds.run(("addition", "slstm", 1), 9, scale="smoke")], tmp_path)
    assert main(["--results", str(tmp_path)]) == 0
    only = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert checked(only) == {"smoke": True}


def test_what_a_record_holds_is_only_text(tmp_path):
    shutil.copy(PUBLISHED, tmp_path)
    bad = "</script><script>alert(1)</script>"
    append([worlds.run(("addition", "tlstm_2d", 4), 100, label=bad)], tmp_path)
    assert main(["--results", str(tmp_path)]) == 0
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(Page(content).of("script")) == 3  # of the charts, Bokeh and the page
    assert "alert(1)" in content
    assert "<script>alert(1)" not in content


def test_a_bad_store_does_not_keep_the_others_from_being_shown(tmp_path, capsys):
    shutil.copy(PUBLISHED, tmp_path)
    append([worlds.run(("addition", "tlstm_2d", 4), 100)], tmp_path)
    (tmp_path / "width").mkdir()
    (tmp_path / "width" / "records.jsonl").write_text("{}\n")
    assert main(["--results", str(tmp_path)]) == 2
    assert "Addition" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "width/records.jsonl" in capsys.readouterr().err


def test_the_smaller_picture_of_a_memory_cell_is_kept(tmp_path, content):
    directory = tmp_path / "fig6"
    directory.mkdir()
    for name, size in {"a.png": 9, "a.svg": 5, "b.png": 1, "b.svg": 2, "a.json": 1}.items():
        (directory / name).write_bytes(b"x" * size)
    assert [path.name for path in memory_cells(tmp_path)] == ["a.svg", "b.png"]
    assert 'src="data:image/png;base64,iVBORw0KGgo' in content


# Numbers


def test_curves_of_wikipedia_are_bits_per_character():
    place, value = ("wikipedia", "tlstm_3d", 3), 1.4
    record = worlds.run(place, value)
    (chart,) = charts.curves(rows.run_table([record]), {record.identifier: record.curve}, "name")
    (line,) = chart.figure.renderers
    assert line.data_source.data["x"] == [100_000, 1_000_000]
    assert line.data_source.data["y"] == pytest.approx([3 / math.log(2), value], abs=1e-3)
    assert chart.figure.yaxis.axis_label == "bits per character"
    assert line.tags[0] == {"model": "tlstm_3d", "seed": "0"}


def test_a_run_that_diverged_has_no_point_where_its_loss_was_not_finite():
    record = worlds.run(("wikipedia", "slstm", 1), 1.3)
    broken = [point.model_copy(update={"loss": None}) for point in record.curve]
    record = record.model_copy(update={"curve": broken, "best": {"accuracy": 0.1}, "test": {}})
    (chart,) = charts.curves(rows.run_table([record]), {record.identifier: broken}, "name")
    assert chart.figure.renderers[0].data_source.data["x"] == []
    (row,) = every_run(rows.run_table([record]))
    assert row["value"] == tables.UNKNOWN


def test_pictures_against_depth_show_means_and_ranges():
    records = [
        worlds.run(("mnist", "tlstm_2d", depth), value, seed)
        for depth, values in {1: (0.7, 0.9), 3: (0.9, 0.98)}.items()
        for seed, value in enumerate(values)
    ]
    graded = rows.run_table(records)
    graded["shown"] = rows.quality(graded)
    chart = charts.against_depth(graded, "shown", "accuracy (%)", "name")
    line, _ = chart.figure.renderers
    data = {name: list(values) for name, values in line.data_source.data.items()}
    assert data["depth"] == [1, 3]
    assert data["mean"] == pytest.approx([80, 94])
    assert data["min"] == pytest.approx([70, 90])
    assert data["max"] == pytest.approx([90, 98])


def test_ablations_stand_side_by_side():
    records = [
        worlds.run(("mnist", model, depth), value, seed)
        for model, mean in {"tlstm_2d": 0.9, "tlstm_2d_no_feedback": 0.95, "slstm": 0.8}.items()
        for depth in (1, 3)
        for seed, value in enumerate([mean, mean + 0.01])
        if (model, depth) != ("slstm", 3)
    ]
    stack, feedback, without = side_by_side(rows.run_table(records))
    assert [row["label"] for row in (stack, without)] == ["sLSTM, M = 100", "2D tLSTM–F, M = 100"]
    assert stack["cells"] == [("80.5% (80.0 to 81.0)", False), (tables.UNKNOWN, False)]
    assert without["cells"] == [("95.5% (95.0 to 96.0)", True)] * 2
    assert not feedback["cells"][0][1]


def test_a_measured_row_is_chosen_by_validation_and_shows_the_test():
    kinds = {3: (0.99, 0.91), 5: (0.95, 0.97)}  # validation, test
    records = [
        worlds.run(
            ("mnist", "tlstm_3d_cn", depth),
            0.9,
            best={"accuracy": validation, "loss": 1.0},
            test={"accuracy": test, "loss": 1.0},
        )
        for depth, (validation, test) in kinds.items()
    ]
    best = rows.best_line(rows.run_table(records))
    assert best["depth"].iloc[0] == 3
    assert rows.result(best).startswith("91.0%")


def test_choices_and_recipes_do_not_stand_for_the_reproduction(tmp_path):
    """Not where they are the very run that a figure has, and not where they are better."""
    shutil.copy(PUBLISHED, tmp_path)
    key = ("memorization", "tlstm_3d_cn", 10)
    run = worlds.run(key, 80, experiment="fig4")
    later = {"experiment": "choices", "finished": run.finished.replace(year=2030)}
    better = worlds.run(key, 10, experiment="recipe", label="another recipe")
    alone = worlds.run(("addition", "tlstm_3d_cn", 7), 10, experiment="choices")
    append([run, run.model_copy(update=later), better, alone], tmp_path)
    records, *_ = read(tmp_path)
    assert {(each.experiment, each.task, each.label) for each in records} == {
        ("fig4", "memorization", run.label),
        ("recipe", "memorization", "another recipe"),
        ("choices", "addition", alone.label),
    }
    text = render(records, [], tables.read_published(tmp_path / "published.csv"))
    published, _, after = text.partition('<section id="published">')[2].partition("</section>")
    assert " after 80K</td>" in published
    assert "another recipe" not in published
    assert "another recipe" in after
    assert "Addition, choices" in text
    assert "Addition, choices" in render([alone], [], tables.read_published(PUBLISHED))


def test_costs_are_sums_of_the_runs():
    records = [
        worlds.run(("addition", "slstm", 1), 9, seed, device_seconds=60.0 * minutes)
        for seed, minutes in enumerate([1, 2, 6])
    ]
    (row,) = rows.cost_rows(rows.run_table(records))
    assert row["device minutes a run (range)"] == "3.0 (1.0 to 6.0)"
    assert (row["runs"], row["device minutes"]) == ("3", "9.0")


def test_curves_have_the_published_stars_and_the_line_to_pass(tmp_path):
    published = tables.read_published(PUBLISHED)
    found = {}
    for task, depth in (("memorization", 10), ("mnist", 3)):
        record = worlds.run((task, "tlstm_3d_cn", depth), 0.9, threshold=0.99 if depth > 3 else 1.0)
        marks = tables.published_marks(published, task)
        (chart,) = charts.curves(
            rows.run_table([record]), {record.identifier: record.curve}, "name", marks
        )
        stars = [each for each in chart.figure.renderers if "published" in str(each.name)]
        lines = [each.location for each in chart.figure.center if isinstance(each, Span)]
        found[task] = {each.name: each.data_source.data for each in stars}, lines
    stars, lines = found["memorization"]
    assert stars["3D tLSTM+CN, published"] == {"x": [54_000], "y": [99]}
    assert lines == [99]
    assert found["mnist"] == ({}, [])  # no published samples, and nothing to pass


def test_a_script_cannot_be_ended_by_what_the_charts_hold():
    table = rows.run_table([worlds.run(("mnist", "tlstm_2d", 1), 0.5, label="</script>")])
    assert "<" not in embedded([charts.against_depth(table, "best_accuracy", "y", "</x>")])


# The command line


def test_without_records_it_says_what_to_run(tmp_path, capsys):
    assert main(["--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "make reproduce-fig4" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_it_cannot_read_or_write_is_one_sentence(tmp_path, capsys):
    append([worlds.run(("addition", "slstm", 1), 9)], tmp_path)
    assert main(["--results", str(tmp_path)]) == 2
    assert "published.csv: No such file" in capsys.readouterr().err
    shutil.copy(PUBLISHED, tmp_path)
    (tmp_path / "report.html").mkdir()
    assert main(["--results", str(tmp_path)]) == 2
    assert "cannot be written" in capsys.readouterr().err
    with (tmp_path / "fig4" / "records.jsonl").open("a") as file:
        file.write("{}\n")
    assert main(["--results", str(tmp_path)]) == 2
    assert "line 2 of" in capsys.readouterr().err


# In a browser

in_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs Chromium and its driver (apt-get install chromium chromium-driver)",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,1000",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def opened(browser: webdriver.Chrome, results: Path, content: str) -> webdriver.Chrome:
    browser.get((results / "report.html").as_uri())
    WebDriverWait(browser, 120).until(
        lambda driver: driver.execute_script("return document.documentElement.dataset.ready")
    )
    assert shown(browser, 'section section[data-scale="smoke"]') == 0  # opens with the paper's
    assert shown(browser, 'section section[data-scale="paper"]') == 2
    check_all(browser)
    for group in browser.find_elements(By.CSS_SELECTOR, ".charts"):  # drawn when one comes near
        browser.execute_script("arguments[0].scrollIntoView()", group)
        WebDriverWait(browser, 120).until(
            lambda _, group=group: group.get_attribute("data-drawn") == "yes"
        )
    return browser


@pytest.fixture(autouse=True)
def nothing_filtered(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test that used the filters leaves them as they were: the page is loaded once."""
    yield
    if "opened" in request.fixturenames:
        check_all(request.getfixturevalue("opened"))


def check_all(browser: webdriver.Chrome) -> None:
    for box in browser.find_elements(By.CSS_SELECTOR, "fieldset input:not(:checked)"):
        box.click()


def click(browser: webdriver.Chrome, name: str, value: str) -> None:
    box = f'fieldset[data-name="{name}"] input[value="{value}"]'
    browser.find_element(By.CSS_SELECTOR, box).click()


def shown(browser: webdriver.Chrome, selector: str) -> int:
    found = browser.find_elements(By.CSS_SELECTOR, selector)
    return sum(element.is_displayed() for element in found)


def lines(browser: webdriver.Chrome) -> dict[str, int]:
    """How many lines of curves each configuration has that can be seen."""
    script = """
        const seen = {};
        for (const plot of Bokeh.documents.flatMap((each) => each.roots()))
          for (const line of plot.renderers)
            if (line.visible && line.tags[0].seed !== undefined)
              seen[line.tags[0].model] = (seen[line.tags[0].model] ?? 0) + 1;
        return seen;
    """
    return browser.execute_script(script)


@in_browser
@pytest.mark.xdist_group("browser")
def test_filters_change_what_is_seen(opened):
    rows, models = "#runs tbody tr", len(worlds.BITS)
    total = len(opened.find_elements(By.CSS_SELECTOR, rows))
    assert opened.find_element(By.ID, "shown").text == f"{total} of {total} runs shown"
    before = lines(opened)
    assert len(before) == models

    click(opened, "model", "tlstm_3d")
    after = lines(opened)
    assert {name: after[name] for name in after} == {
        name: count for name, count in before.items() if name != "tlstm_3d"
    }
    assert shown(opened, f'{rows}[data-model="tlstm_3d"]') == 0
    kept = total - total // models
    assert opened.find_element(By.ID, "shown").text == f"{kept} of {total} runs shown"
    click(opened, "model", "tlstm_3d")
    assert lines(opened) == before

    click(opened, "seed", "1")
    assert lines(opened)["slstm"] == before["slstm"] - 4 - 4  # of two tasks


@in_browser
@pytest.mark.xdist_group("browser")
def test_scale_task_and_depth_hide_their_sections_and_pictures(opened):
    sections_of = 'section section[data-{}="{}"]'
    assert shown(opened, sections_of.format("scale", "smoke")) == 2
    click(opened, "scale", "smoke")
    assert shown(opened, sections_of.format("scale", "smoke")) == 0
    assert shown(opened, sections_of.format("scale", "paper")) == 2
    click(opened, "task", "wikipedia")
    assert shown(opened, sections_of.format("task", "wikipedia")) == 0
    pictures = 'section[data-scale="paper"][data-task="addition"] figure'
    assert shown(opened, pictures) == 7
    click(opened, "depth", "7")
    assert shown(opened, pictures) == 6
    assert shown(opened, '#runs tbody tr[data-depth="7"]') == 0
    all_or_none = 'fieldset[data-name="scale"] legend button'
    opened.find_element(By.CSS_SELECTOR, all_or_none).click()
    assert shown(opened, sections_of.format("scale", "smoke")) == 2


@in_browser
@pytest.mark.xdist_group("browser")
def test_lines_are_really_drawn_and_really_hidden(opened):
    picture = opened.find_element(
        By.CSS_SELECTOR, 'section[data-scale="paper"][data-task="addition"] figure'
    )
    opened.execute_script("arguments[0].scrollIntoView()", picture)
    drawn = painted(opened, picture)
    for model in worlds.SAMPLES:
        click(opened, "model", model)
    assert painted(opened, picture) < drawn / 2


def painted(browser: webdriver.Chrome, picture) -> int:
    """Pixels in the lines' colours on the canvases of a picture: neither grey nor transparent."""
    script = """
        const canvases = [];
        const visit = (node) => {
          if (node.shadowRoot) visit(node.shadowRoot);
          for (const child of node.children) {
            if (child.tagName === "CANVAS") canvases.push(child);
            visit(child);
          }
        };
        const [picture, done] = arguments;
        const count = () => {
          visit(picture);
          let pixels = 0;
          for (const canvas of canvases) {
            if (!canvas.width || !canvas.height) continue;
            const context = canvas.getContext("2d");
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            for (let i = 0; i < data.length; i += 4) {
              const spread = Math.max(data[i], data[i + 1], data[i + 2])
                - Math.min(data[i], data[i + 1], data[i + 2]);
              if (data[i + 3] > 0 && spread > 60) pixels += 1;
            }
          }
          done(pixels);
        };
        setTimeout(count, 300);
    """
    return browser.execute_async_script(script, picture)


@in_browser
@pytest.mark.xdist_group("browser")
def test_it_asks_nobody_and_nothing_goes_wrong(opened, results):
    asked = [
        re.search(r'"url":"(.*?)"', entry["message"])
        for entry in opened.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    addresses = {found.group(1) for found in asked if found}
    assert {urlsplit(address).scheme for address in addresses} <= {"file", "data"}
    page = (results / "report.html").as_uri()
    assert {address for address in addresses if address.startswith("file")} == {page}
    wrong = [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"]
    assert wrong == []


@in_browser
@pytest.mark.xdist_group("browser")
def test_it_fits_a_telephone_and_follows_light_and_dark(opened):
    def grid() -> str:
        return opened.execute_script(
            "return Bokeh.documents[0].roots()[0].below[0].axis_label_text_color"
        )

    wide = """
        return [...document.querySelectorAll(".scroll")]
          .filter((card) => card.scrollWidth > card.clientWidth).length
    """
    assert opened.execute_script(wide) == 0  # no table is wider than the page
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    light = grid()
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    WebDriverWait(opened, 10).until(lambda _: grid() != light)
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    widths = opened.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widths == [390, 390]
