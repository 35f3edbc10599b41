"""The page of `switchyard serve` in headless Chromium: typed, streamed, looked at by its structure; keyboard alone."""

import json
import re

import pytest

from browser import Browser, needs_browser
from served import PROMPT, serve

pytestmark = needs_browser


@pytest.fixture(scope="module")
def server(small_run):
    served = serve(small_run, "--slots", 2, "--max-length", 3000)
    yield served
    assert served.end() == 0


@pytest.fixture
def page(server):
    browser = Browser()
    browser.open(f"http://127.0.0.1:{server.port}/")
    browser.wait("document.title !== 'Switchyard'")
    yield browser
    complaints, requests = browser.complaints, browser.requests
    browser.close()
    assert not complaints
    assert all(url.startswith(f"http://127.0.0.1:{server.port}/") or url.startswith("data:") for url in requests)


def fill_in(page, prompt, tokens=12):
    page.value("document.getElementById('prompt').focus(); document.getElementById('prompt').select()")
    page.type(prompt)
    page.value(f"document.getElementById('max_tokens').value = {tokens}")
    page.press("Enter", control=True)


def test_a_prompt_is_filled_in_and_its_tokens_are_coloured(server, page):
    fill_in(page, PROMPT)
    page.wait("!running && document.querySelectorAll('[role=grid]').length === 2")
    expected = server.complete(max_tokens=12)["choices"][0]
    assert page.value("document.getElementById('raw').textContent") == "Written: " + expected["text"]
    assert page.value("document.querySelectorAll('#answer mark, #answer .blank').length") == 2
    assert page.value("document.getElementById('timing').textContent").startswith(f"{len(expected['tokens'])} tokens in ")
    # Every token of every layer has its expert's number, and experts have colours of their own.
    routing = server.well("/routing", {"content": PROMPT, "output": expected["tokens"]})
    for number, stack in enumerate(("encoder", "decoder")):
        cells = page.value(f"[...document.querySelectorAll('[role=grid]')[{number}].querySelectorAll('.token')].map(cell => "
                           "[cell.querySelector('sub').textContent, getComputedStyle(cell).backgroundColor])")
        experts = [str(expert) for layer in routing[stack]["layers"] for (expert,) in layer["experts"]]
        assert [expert for expert, _ in cells] == experts
        assert len({colour for _, colour in cells}) == len(set(experts))
    page.wait("document.querySelectorAll('.load .bars i').length > 0")
    layers = len(routing["encoder"]["layers"]) + len(routing["decoder"]["layers"])
    assert page.value("document.querySelectorAll('.load .bars i').length") == 4 * layers


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_picture_shows_tokens_and_loads_in_their_colours(page, tmp_path, dark):
    """A screenshot against the page's structure: what should be drawn where, and is."""
    page.set_dark(dark)
    fill_in(page, PROMPT)
    page.wait("!running && document.querySelectorAll('[role=grid]').length === 2 && document.querySelectorAll('.load .bars i').length > 0")
    page.value("document.activeElement.blur()")
    page.screenshot(tmp_path / "page.png")
    # Above a token's letters, and at the foot of a bar, there is nothing but its colour.
    boxes = page.value("""[['.token:not(.none)', box => box.top + 3], ['.load .bars i', box => box.bottom - 1]].flatMap(([what, height]) =>
      [...document.querySelectorAll(what)].map(element => [element, element.getBoundingClientRect()]).filter(([_, box]) => box.height >= 2)
      .map(([element, box]) => [what, [(box.left + box.right) / 2 + scrollX, height(box) + scrollY].map(Math.floor), getComputedStyle(element).backgroundColor]))""")
    assert {what for what, _, _ in boxes} == {".token:not(.none)", ".load .bars i"} and len(boxes) > 20
    shown = page.colours(tmp_path / "page.png", [place for _, place, _ in boxes])
    for (what, place, expected), seen in zip(boxes, shown):
        wanted = [int(value) for value in re.findall(r"\d+", expected)]
        assert max(abs(a - b) for a, b in zip(seen, wanted)) <= 3, (what, place, expected, seen)
    assert len({colour for _, _, colour in boxes}) > 4
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
    corner, = page.colours(tmp_path / "page.png", [[2, 2]])
    assert (sum(corner) < 3 * 80) == dark


def test_the_keyboard_is_enough(page):
    fill_in(page, PROMPT)
    page.wait("!running && document.querySelectorAll('[role=grid]').length === 2")
    for _ in range(20):
        page.press("Tab")
        if page.value("document.activeElement.className.includes('token')"):
            break
    first = page.value("document.getElementById('detail').textContent")
    assert "encoder" in first and "expert" in first and "gate" in first
    page.press("ArrowRight")
    second = page.value("document.getElementById('detail').textContent")
    page.press("End")
    assert len({first, second, page.value("document.getElementById('detail').textContent")}) == 3
    assert page.value("document.querySelectorAll('[role=grid] [tabindex=\"0\"]').length") == 2  # one stop a stack
    labels = page.value("[...document.querySelectorAll('input, textarea, select')].map(field => field.labels.length)")
    assert labels and all(labels)


def test_escape_stops_and_frees_the_slot(server, page):
    fill_in(page, PROMPT, tokens=3000)
    page.value("document.getElementById('temperature').value = 3")
    page.press("Enter", control=True)
    page.wait("running !== null || document.getElementById('timing').textContent")
    page.press("Escape")
    page.wait("running === null && document.getElementById('timing').textContent !== ''")
    while server.metric("switchyard_requests_running") > 0:
        pass


def test_errors_are_shown(page):
    fill_in(page, PROMPT, tokens=100000)
    assert "max_tokens" in page.wait("document.getElementById('error').textContent")


def test_text_from_a_model_is_text(page):
    page.value("showAnswer('a <extra_id_0> b', '<extra_id_0> <img src=x onerror=alert(1)>', false)")
    assert page.value("document.querySelectorAll('#answer img').length") == 0
    assert "<img" in page.value("document.querySelector('#answer mark').textContent")


def test_light_and_dark_differ_and_can_be_read(page):
    def contrast():
        return page.value("""(() => {
          const light = name => { const [r, g, b] = getComputedStyle(document.body)[name].match(/[\\d.]+/g).map(value => (value / 255) ** 2.2);
            return .2126 * r + .7152 * g + .0722 * b + .05; };
          const pair = [light('color'), light('backgroundColor')].sort((a, b) => b - a);
          return pair[0] / pair[1]; })()""")
    page.set_dark(False)
    light = page.value("getComputedStyle(document.body).backgroundColor")
    assert contrast() > 7
    page.set_dark(True)
    assert contrast() > 7 and page.value("getComputedStyle(document.body).backgroundColor") != light


def alarms(page, *loads, dropped=0):
    layers = [{"name": f"encoder.{n}", "tokens": sum(load), "dropped": dropped, "load": load} for n, load in enumerate(loads)]
    return page.value(f"alarmsOf({json.dumps(layers)})")


def test_alarms_are_in_words(page):
    assert alarms(page, [100, 120, 80, 100]) == []
    assert alarms(page, [10, 0, 0, 0]) == []  # too few to tell
    starving, = alarms(page, [400, 2, 300, 298])
    assert starving["kind"] == "starving" and starving["words"].startswith("expert 1 of 4 starves: 0.2")
    collapsed, = alarms(page, [2, 1, 995, 2])
    assert collapsed["kind"] == "collapse" and "to expert 2 of 4" in collapsed["words"] and collapsed["layer"] == "encoder.0"
    two, = alarms(page, [5000, 4900] + [1] * 14)
    assert two["kind"] == "collapse" and "experts 0 and 1 of 16" in two["words"]
    assert [alarm["kind"] for alarm in alarms(page, [100, 100, 100, 100], dropped=100)] == ["drops"]
    # And they are shown, once, where metrics say so.
    page.value("""showAlarms(at('alarms'), at('no_alarms'), layersOf(readMetrics('switchyard_routed_tokens_total{layer="decoder.3"} 1000\\n'
      + 'switchyard_expert_tokens_total{layer="decoder.3",expert="0"} 999\\nswitchyard_expert_tokens_total{layer="decoder.3",expert="1"} 1\\n')))""")
    assert page.value("document.getElementById('alarms').textContent").startswith("decoder.3: the router has collapsed")
    assert page.value("document.getElementById('no_alarms').hidden")
