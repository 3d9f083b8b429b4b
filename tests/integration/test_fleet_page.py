"""The fleet's page as a real browser shows it, on a phone and on a desk, without scripts."""

from __future__ import annotations

import pytest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._fleet.report import Run, fleet, page
from conftest import ROOT
from support.browser import Browser
from support.fleet import ABOUT, HOSTILE, TEMPLATE, failure, mixed, report

WIDTHS = (320, 390, 800, 1280)
TONES = {"healthy": "#12733f", "failed": "#b3261e", "unreachable": "#b3261e", "drifted": "#8a5300"}
DARK = {"healthy": "#6fdc9f", "failed": "#ff9a90"}


@pytest.fixture(scope="module")
def browser():
    with Browser() as running:
        yield running


@pytest.fixture
def shown(browser, tmp_path):
    """Show a view and return the browser."""

    def show(view: dict, width: int, **options) -> Browser:
        path = tmp_path / "fleet.html"
        path.write_text(page(view, TEMPLATE, **ABOUT))
        browser.show(path, width, **options)
        return browser

    return show


def large() -> dict:
    """200 hosts, of which three are in trouble, with the longest words that there can be."""
    names = [f"host{number}" for number in range(197)]
    endless = "x" * 900
    bad = {"h" * 250: failure(endless), "b1": failure(HOSTILE * 5, unreachable=True), "b2": failure("/very" * 60)}
    long = report(
        gvisor={"release": endless, "shim": endless}, containerd={"version": endless}, image={"references": [endless], "digest": endless}
    )
    return fleet(Run([*names, *bad], reports={name: report() for name in names} | {"host0": long}, failures=bad))


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(shown, width):
    for view in (mixed(), large()):
        browser = shown(view, width)
        assert browser.size()[0] <= width
        for node in browser.nodes("tbody th, .why p, .counts li")[:60]:
            left, _top, right, _bottom = browser.box(node)
            assert 0 <= left < right <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_every_row_is_there_with_its_words(shown, width):
    text = shown(mixed(), width).text()
    for words in (
        "5 of 7 hosts need a look",
        "web10",
        "No route to host",
        "cache1",
        "No space left on device",
        "20260701",
        "Starting gVisor...",
        "ggen:26.5.19",
    ):
        assert words in text
    for label in ("unreachable", "failed", "not finished", "not as it should be", "healthy", "not in this run"):
        assert label in text


def test_the_worst_hosts_are_on_a_phone_s_first_screen(shown):
    browser = shown(large(), 390, height=844)
    tops = [browser.box(node)[1] for node in browser.nodes("tbody.unreachable th")]
    assert tops
    assert max(tops) < 844


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(("dark", "tones"), [(False, TONES), (True, DARK)])
def test_a_row_has_the_colour_of_its_state(shown, width, dark, tones):
    browser = shown(mixed(), width, dark=dark)
    for state, tone in tones.items():
        # On a phone the bar is the card's, on a desk the first cell's.
        (node, *_others) = browser.nodes(f"tbody.{state}" if width < 800 else f"tbody.{state} th")
        left, top, _right, bottom = browser.box(node)
        assert browser.pixel(left + 2, (top + bottom) / 2) == tuple(bytes.fromhex(tone[1:])), state


def test_the_page_asks_for_nothing_and_runs_nothing(shown):
    view = fleet(Run([HOSTILE], reports={}, failures={HOSTILE: failure(HOSTILE)}))
    browser = shown(view, 1280)
    assert len(browser.requests()) == 1
    assert browser.nodes("script, img") == []
    assert HOSTILE in browser.text()
    complaints = [event for event in browser.events if event.get("method") in ("Log.entryAdded", "Page.javascriptDialogOpening")]
    assert complaints == []


def test_a_screen_reader_hears_a_table(shown):
    browser = shown(mixed(), 390)
    roles = [node.get("role", {}).get("value") for node in browser.call("Accessibility.getFullAXTree")["nodes"]]
    assert roles.count("rowheader") == 7
    assert roles.count("columnheader") == 7
    assert "table" in roles


def test_the_screenshot_in_the_readme_is_of_this_page():
    assert "(fleet.png)" in (ROOT / "docs/fleets.md").read_text()
    assert (ROOT / "docs/fleet.png").stat().st_size < 200_000
