"""The first screen: open a trace, click a token, see what drove it; with a mouse, with keys, for a screen reader."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import LONG, Shown
from tests.support.http_server import serving
from tests.support.synthetic import make_trace
from tracestore.model import Output, Trace


def strengths(page: Page) -> dict[int, tuple[float, bool]]:
    """Read (strength of colour, is it marked as lowering) of every token of the text."""
    script = "e => e.map(t => [Number(t.dataset.pos), Number(t.style.getPropertyValue('--strength') || 0), t.classList.contains('down')])"
    return {pos: (strength, down) for pos, strength, down in page.locator(".text .token[data-pos]").evaluate_all(script)}


def expected_strengths(output: Output, measure: str) -> dict[int, float]:
    rows = [row for row in output.influences().to_pylist() if not row["sink"]]
    largest = max(abs(row[measure]) for row in rows)
    return {row["pos"]: 0.62 * abs(row[measure]) / largest for row in rows}


def sign(value: float) -> str:
    return "−" if value < 0 else "+"  # noqa: RUF001  as the page writes it


def emitted(trace: Trace) -> Output:
    """Give an output whose token follows in the text."""
    return trace.outputs[1]


def test_a_click_on_a_token_colours_what_came_before_by_its_influence(page: Page, shown: Shown) -> None:
    page.goto(shown.url)
    page.get_by_role("link", name=re.compile("Mary gave John")).first.click()
    output = emitted(shown.story)
    page.locator(f".token[data-pos='{output.row['pos'] + 1}']").click()
    expect(page.locator(".token.target")).to_have_attribute("data-pos", str(output.row["pos"] + 1))
    found = strengths(page)
    signs = {row["pos"]: row["drive"] < 0 for row in output.influences().to_pylist()}
    for pos, strength in expected_strengths(output, "drive").items():
        assert found[pos][0] == pytest.approx(strength, abs=2e-3)
        if strength > 0.02:
            assert found[pos][1] is signs[pos]
    assert found[0][0] == 0  # the sink is left uncoloured
    expect(page.locator(".token.sink")).to_have_count(1)
    assert all(strength == 0 for pos, (strength, _) in found.items() if pos > output.row["pos"])
    probability = f"{100 * output.row['prob']:.1f} %"
    expect(page.get_by_label("Prediction", exact=True)).to_contain_text(probability)
    assert output.output_id in page.url.replace("%3A", ":")


def test_the_measure_is_switched_and_stays_in_the_address(page: Page, shown: Shown) -> None:
    output = emitted(shown.story)
    page.goto(shown.at("trace", shown.story, output=output.output_id))
    page.get_by_text("Signed", exact=True).click()
    for pos, strength in expected_strengths(output, "score").items():
        assert strengths(page)[pos][0] == pytest.approx(strength, abs=2e-3)
    page.get_by_text("Total", exact=True).click()
    found = strengths(page)
    for pos, strength in expected_strengths(output, "direct").items():
        assert found[pos][0] == pytest.approx(strength, abs=2e-3)
        assert not found[pos][1]
    page.get_by_text("Everywhere", exact=True).click()
    for pos, strength in expected_strengths(output, "total").items():
        assert strengths(page)[pos][0] == pytest.approx(strength, abs=2e-3)
    page.reload()
    expect(page.get_by_label("Total")).to_be_checked()
    expect(page.get_by_label("Address")).to_be_disabled()  # method frozen has none, and says so


def test_numbers_are_shown_on_hover_and_on_focus(page: Page, shown: Shown) -> None:
    output = emitted(shown.story)
    page.goto(shown.at("trace", shown.story, output=output.output_id))
    row = next(row for row in output.influences().to_pylist() if row["pos"] == 3)
    share = f"{sign(row['drive'])}{abs(100 * row['drive']):.1f} %"
    page.locator(".token[data-pos='3']").hover()
    for number in (share, f"{sign(row['score'])}{abs(row['score']):.3f}", f"{sign(row['removal'])}{abs(row['removal']):.3f}"):
        expect(page.get_by_role("tooltip")).to_contain_text(number)
    expect(page.locator(".token[data-pos='3']")).to_have_attribute("aria-label", re.compile(re.escape(share)))
    page.keyboard.press("Escape")
    expect(page.get_by_role("tooltip")).to_be_hidden()


def test_the_list_is_ranked_by_drive_and_sinks_come_last_without_a_bar(page: Page, shown: Shown) -> None:
    small = make_trace(3, n_outputs=2)  # its first prediction has a token that is driven against
    page.goto(shown.at("trace", small, output=small.outputs[0].output_id))
    panel = page.get_by_label("Prediction", exact=True)
    expect(panel.get_by_role("columnheader")).to_have_text(["token", "position", "drive", "score"])
    rows = sorted(small.outputs[0].influences().to_pylist(), key=lambda row: row["rank_drive"])
    script = (
        "e => e.map(({cells: [, pos, cell]}) => [pos.textContent, cell.textContent, cell.querySelector('i')?.className.trim() ?? null])"
    )
    lines = panel.locator("tbody tr").evaluate_all(script)
    assert [int(pos) for pos, _, _ in lines] == [row["pos"] for row in rows]
    assert any(row["drive"] < 0 for row in rows)
    for row, (_, text, bar) in zip(rows, lines, strict=True):
        assert text == f"{sign(row['drive'])}{abs(100 * row['drive']):.1f} %"
        assert bar == (None if row["sink"] else "down" if row["drive"] < 0 else "up")


def test_keys_alone_choose_a_prediction(page: Page, shown: Shown) -> None:
    output = emitted(shown.story)
    page.goto(shown.at("trace", shown.story))
    first = page.locator(".text .token").first
    expect(page.locator(".token.target")).to_have_count(1)
    first.focus()
    for _ in range(output.row["pos"] + 1):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".token.target")).to_have_attribute("data-pos", str(output.row["pos"] + 1))
    expect(page.locator("#said")).to_contain_text("Prediction of")
    assert page.locator(".text .token[tabindex='0']").count() == 1  # one tab stop for the whole text


def test_a_token_that_was_only_read_says_so(page: Page, shown: Shown) -> None:
    page.goto(shown.at("trace", shown.story))
    page.locator(".token[data-pos='2']").click()
    expect(page.get_by_text("was read, not explained")).to_be_visible()


def test_what_was_measured_stands_beside_what_was_estimated(page: Page, shown: Shown) -> None:
    output = emitted(shown.story)
    places = {row["local"]: row["pos"] for row in shown.story.table("Token").to_pylist()}
    rows = [r for r in shown.story.table("KNOCKOUT.Token.Output").to_pylist() if r["kind"] == "column" and r["dst"] == output.row["local"]]
    effects = {places[row["src"]]: row["effect"] for row in sorted(rows, key=lambda row: row["created_at"])}  # the newest counts
    scores = {row["pos"]: row["score"] for row in output.influences().to_pylist()}
    page.goto(shown.at("trace", shown.story, output=output.output_id))
    panel = page.get_by_label("Prediction", exact=True)
    expect(panel.get_by_role("columnheader", name="without it")).to_be_visible()
    lines = panel.locator("tbody tr").evaluate_all("e => e.map(line => [...line.cells].map(cell => cell.textContent))")
    assert {int(line[1]) for line in lines} & effects.keys()
    for line in lines:
        effect = effects.get(int(line[1]))
        number = "–" if effect is None else f"{'−' if effect < 0 else '+'}{abs(effect):.3f}"  # noqa: RUF001  as the page writes it
        assert line[4] == number + (" !" if effect is not None and effect * scores[int(line[1])] > 0 else "")
    agree = sum(effect * scores[pos] <= 0 for pos, effect in effects.items())
    expect(panel).to_contain_text(f"for {agree} of {len(effects)} tokens that were tried")
    page.goto(shown.at("trace", shown.long))
    expect(page.locator(".text .token[data-pos]")).to_have_count(LONG)
    expect(panel.locator("tbody tr").first).to_be_visible()
    expect(panel.get_by_role("columnheader", name="without it")).to_have_count(0)


def test_spans_are_margins(page: Page, shown: Shown) -> None:
    page.goto(shown.at("trace", shown.story))
    expect(page.locator(".margin .name").first).to_have_text("step 1")
    expect(page.locator(".rail.step")).to_have_count(2)
    assert page.locator(".token.inside-answer").count() == 4


def test_a_long_trace_opens_within_a_second(page: Page, shown: Shown) -> None:
    page.goto(shown.url)
    page.get_by_role("heading", name="Traces").wait_for()
    started = time.perf_counter()
    page.evaluate("address => { location.hash = address }", f"#/trace/{shown.long.trace_id}")
    page.locator(".text .token.later, .text .token[style*='--strength']").nth(LONG // 2).wait_for()
    seconds = time.perf_counter() - started
    assert page.locator(".text .token[data-pos]").count() == LONG
    assert seconds < 1.0


def test_the_traces_are_searched_and_filtered(page: Page, shown: Shown) -> None:
    page.goto(shown.url)
    expect(page.locator("tbody tr")).to_have_count(4)
    page.get_by_label("Text that it holds").fill("So John has")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Text that it holds").fill("")
    page.get_by_label("Data set").fill("tales")
    page.keyboard.press("Tab")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)


def test_a_server_with_a_token_asks_for_it(context: BrowserContext, store_of_browser: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    with serving("--store", store_of_browser, "--token-file", token) as served:
        page = context.new_page()
        page.goto(served.url)
        for given in ("wrong", "0123456789abcdef"):
            page.get_by_label("Token", exact=True).last.fill(given)
            page.get_by_role("button", name="Go on").click()
        expect(page.locator("tbody tr")).to_have_count(4)
        page.close()


def test_what_is_gone_is_said_plainly(context: BrowserContext, shown: Shown) -> None:
    page = context.new_page()
    page.goto(f"{shown.url}/#/trace/nothing")
    expect(page.get_by_role("alert")).to_contain_text("no trace of this id")
    page.close()
