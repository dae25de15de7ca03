"""The page in a real Chromium: what it shows, how it follows, its forms, in the dark and on a phone.

Rules of this file: skipped only where there is no Chromium or no Playwright. One browser for all; each test
has a context of its own, so no token is left over. Nothing sleeps: Playwright waits for what is expected, and
time is driven. Whatever the console says is a failure, and so is a request to anywhere else.
"""

from __future__ import annotations

import base64
import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.admin.shop import HOST, open_shop
from tests.support.edge import TOKEN

playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
expect = playwright.expect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from tests.admin.shop import Shop

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the PATH"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.long,
    pytest.mark.xdist_group("chromium"),  # one process of the run starts it
]
LOOKS: dict[str, Any] = {
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 1000}},
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 1000}},
    "phone": {"color_scheme": "dark", "viewport": {"width": 375, "height": 740}, "has_touch": True},
}
CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with playwright.async_playwright() as started:
        # As root, as in a container, Chromium does not start with its sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        launched = await started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> AsyncIterator[Shop]:
    pictures = pytestconfig.getoption("--page-pictures")
    async with open_shop(tmp_path_factory.mktemp("rules")) as shop:
        await shop.visit(*((62, 40) if pictures else (6, 20)))
        yield shop


@asynccontextmanager
async def opened(browser: Browser, url: str, *, look: str = "dark", noise: str = "") -> AsyncIterator[Page]:
    """The page, open. What it logs or asks of others fails the test; ``noise`` is a part of a log line that
    is expected."""
    # Colours are looked at as they are, not on their way from one to another.
    context = await browser.new_context(**LOOKS[look], reduced_motion="reduce")
    page = await context.new_page()
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if not noise or noise not in said.text else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(url) else wrong.append(asked.url))
    try:
        await page.goto(url)
        yield page
    finally:
        await context.close()
    assert wrong == []


async def test_it_shows_what_the_worker_counts(browser: Browser, shop: Shop) -> None:
    async with opened(browser, shop.admin) as page:
        rows = page.locator("#rules-table tbody tr")
        await expect(rows.first).to_contain_text("pitches")
        told = await (await page.request.get(f"{shop.admin}api/live")).json()
        assert await rows.count() == len(told["rules"]) + 2  # the one nobody asks for, and the sum
        assert await page.locator("tr.idle th").inner_text() == "never-asked\nshop.yaml:17"
        ratio = float((await page.locator("[data-tile=hit_ratio] dd").inner_text()).split()[0])
        assert ratio == pytest.approx(100 * told["all"]["hit_ratio"], abs=0.06)
        await expect(page.locator("#state")).to_have_text("serving")
        await expect(page.locator("#origins-table tbody")).to_contain_text("usable")
        await expect(page.locator("#troubles-table tbody")).to_contain_text(
            "GET shop.example/api/live/broken"
        )
        await expect(page.locator("#wanted-list li").first).to_contain_text("shop.example/api/")
        await expect(page.locator("#reasons-list")).to_contain_text("set-cookie")
        assert await page.locator(".chart svg path.area").count() >= 3
        assert await page.locator(".chart svg path.line").count() == 1 + 3
        label = await page.locator(".chart svg").first.get_attribute("aria-label")
        assert label is not None
        assert label.startswith("Requests, now hits ")


async def test_it_follows_and_pauses(browser: Browser, shop: Shop) -> None:
    async with opened(browser, shop.admin) as page:
        sent = page.locator("#rules-table tr.all td").first
        await expect(sent).not_to_have_text("")
        before = int((await sent.inner_text()).replace(",", ""))
        await shop.visit(1, 10)
        await shop.clock.advance(2)  # the next event with the tables
        after = (await (await page.request.get(f"{shop.admin}api/live")).json())["all"]["requests"]
        assert after > before
        await expect(sent).to_have_text(f"{after:,}")
        await page.get_by_role("button", name="Pause").click()
        await shop.visit(1, 10)
        await expect(sent).to_have_text(f"{after:,}")
        await page.get_by_role("button", name="Go on").click()
        await shop.clock.advance(2)
        await expect(sent).not_to_have_text(f"{after:,}")
        await page.get_by_text("1 hour").click()
        await expect(page.locator("[data-span]")).to_have_text("over the last hour")


async def test_rules_are_sorted_by_a_click_or_a_key(browser: Browser, shop: Shop) -> None:
    async with opened(browser, shop.admin) as page:
        first = page.locator("#rules-table tbody th").first
        heading = page.locator("#rules-table thead th[data-key=name]")
        await expect(page.locator("thead th[data-key=requests]")).to_have_attribute("aria-sort", "descending")
        await heading.get_by_role("button").click()
        await expect(heading).to_have_attribute("aria-sort", "ascending")
        await expect(first).to_contain_text("account")
        await page.keyboard.press("Enter")  # it kept the focus
        await expect(heading).to_have_attribute("aria-sort", "descending")
        await expect(first).to_contain_text("search")


async def test_the_charts_tell_what_is_under_the_pointer(browser: Browser, shop: Shop) -> None:
    async with opened(browser, shop.admin) as page:
        chart = page.locator(".chart svg").first
        await expect(chart.locator("path").first).to_be_attached()
        box = await chart.bounding_box()
        assert box is not None
        await page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 40)
        assert await page.locator(".chart .cursor").count() == 3  # one cursor for all
        await page.mouse.move(2, 2)
        assert await page.locator(".chart .cursor").count() == 0


async def test_explain(browser: Browser, shop: Shop) -> None:
    async with opened(browser, shop.admin, noise="400 (Bad Request)") as page:
        form = page.locator("#explain-form")
        await form.get_by_label("URL or path").fill(f"http://{HOST}/api/pitches/1")
        await form.get_by_role("button").click()
        result = page.locator("#explain-result")
        await expect(result).to_contain_text("stored for 1 min")
        await expect(result).to_contain_text("pitches (shop.yaml:3)")
        await expect(result).to_contain_text("in the cache")
        await form.get_by_label("If the origin answers with").fill("Set-Cookie: a=b")
        await form.get_by_label("URL or path").fill("/api/search?q=none")
        await form.get_by_role("button").click()
        await expect(result).to_contain_text("not stored: set-cookie")
        await form.get_by_label("URL or path").fill("ftp://x/")
        await form.get_by_role("button").click()
        await expect(result).to_contain_text("expected a path")


async def test_a_purge_is_previewed_made_and_receipted(browser: Browser, shop: Shop) -> None:
    path = "/api/pitches/199"
    async with opened(browser, shop.admin, noise="401") as page:
        await shop.edge.request("GET", path, [("Host", HOST)])
        form, result = page.locator("#purge-form"), page.locator("#purge-result")
        now = form.get_by_role("button", name="Purge")
        await form.get_by_label("URL or path").fill(path)
        await form.get_by_role("button", name="Preview").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_contain_text("needs 'Authorization: Bearer TOKEN'")
        await dialog.get_by_label("Token").fill(TOKEN)
        await dialog.get_by_role("button", name="Use it").click()
        await expect(result).to_contain_text("Would go: 1 object")
        assert await page.evaluate("sessionStorage.length") == 1
        await form.get_by_label("Soft").check()  # another order than the one that was previewed
        await expect(now).to_be_disabled()
        await form.get_by_label("Soft").uncheck()
        await form.get_by_role("button", name="Preview").click()
        await expect(now).to_be_enabled()
        await now.click()
        await expect(result).to_contain_text(f"url {path} is served no more")
        await expect(result).to_contain_text("l1: ok")
        answer = await shop.edge.request("GET", path, [("Host", HOST)])
        assert answer.get("x-cache-status") == "MISS"


async def test_a_warm_up_is_followed_to_its_end(browser: Browser, shop: Shop) -> None:
    async with opened(browser, shop.admin) as page:
        await page.evaluate("token => sessionStorage.setItem('edgeproxy-admin-token', token)", TOKEN)
        form, result = page.locator("#warm-form"), page.locator("#warm-result")
        await form.get_by_label("URLs, one a line").fill(f"http://{HOST}/api/pitches/warm")
        await form.get_by_role("button", name="Warm up").click()
        await expect(result).to_contain_text("done: 1 of 1 URLs")
        await expect(result).to_contain_text("stored 1")
        answer = await shop.edge.request("GET", "/api/pitches/warm", [("Host", HOST)])
        assert answer.get("x-cache-status") == "HIT"


async def test_what_fires_is_on_the_page(browser: Browser, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    receivers = tmp_path / "alerts.yaml"
    receivers.write_text(f"receivers: {{log: 'file:{tmp_path / 'kept'}', no: 'file:{tmp_path}'}}")
    async with open_shop(rules, alerts=receivers) as shop, opened(browser, shop.admin, look="phone") as page:
        settle = shop.edge.worker.background.settle
        card = page.locator("#alerts-card")
        await expect(card).to_contain_text("Nothing has been looked at yet.")
        shop.edge.worker.metrics.last_reload_ok = False
        await shop.clock.advance(15)
        await settle("look for alerts", "notice to ")
        await shop.clock.advance(12)
        await expect(card).to_contain_text("EdgeproxyReloadRefused")
        await expect(card).to_contain_text("the last load of the rules was refused")
        await expect(page.locator("#alerts-receivers")).to_contain_text("log: told ")
        await expect(page.locator("#alerts-receivers")).to_contain_text("no: Is a directory")
        await card.get_by_text("What to do").click()
        await expect(card).to_contain_text("edgeproxy check DIR names file and line")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await page.evaluate(CONTRAST) == []
        shop.edge.worker.metrics.last_reload_ok = True
        for _ in range(6):
            await shop.clock.advance(15)
            await settle("look for alerts", "notice to ")
        await expect(card).to_contain_text("lasted 1 min")


async def test_versions_of_the_rules_and_the_way_back(browser: Browser, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    async with open_shop(rules, rule_history="9", cache_dir=tmp_path / "cache") as shop:
        operator = shop.edge.worker.operator
        whole = (rules / "shop.yaml").read_text()
        (rules / "shop.yaml").write_text(whole.replace("ttl: 60s", "ttl: 90s"))
        await operator.reload_rules(by="ada")
        await operator.rule_life.shadow([("a.yaml", whole.replace("60s", "30s").encode())], 1, "bob")
        await shop.visit(1, 20)
        async with opened(browser, shop.admin) as page:
            await page.evaluate("token => sessionStorage.setItem('edgeproxy-admin-token', token)", TOKEN)
            table, tried = page.locator("#versions-table"), page.locator("#shadow")
            result = page.locator("#life-result")
            await expect(table).to_contain_text("ada")
            await expect(table.locator("tr").first).to_contain_text("in force")
            await expect(tried).to_contain_text("without effect")
            await expect(tried).to_contain_text("ttl: 1m30s → 30s")
            await expect(page.locator("#savings-table tbody")).to_contain_text("pitches")
            await tried.get_by_role("button", name="10 %", exact=True).click()
            assert (await operator.rule_life.candidate() or {})["percent"] == 0  # it asks first
            await tried.get_by_role("button", name="Promote to 10 %?").click()
            await expect(result).to_contain_text("answers for 10 % of the keys")
            await tried.get_by_role("button", name="100 %", exact=True).click()
            await tried.get_by_role("button", name="Promote to 100 %?").click()
            await expect(tried).to_be_hidden()
            await expect(page.locator("#versions-held")).to_contain_text("holds until the rule files are")
            first = table.locator("tr").last
            await first.get_by_role("button", name="Bring back").click()
            assert await page.evaluate(CONTRAST) == []
            await page.locator("h1").click()  # somewhere else: it is not pressed again
            await expect(first.get_by_role("button")).to_have_text("Bring back")
            await first.get_by_role("button").click()
            await first.get_by_role("button").click()
            await expect(result).to_contain_text("in force, 5 rules")
            assert (await operator.rule_life.history())["versions"][-1]["by"] == "page"
            # The rules have two rows now, and are in force since the second.
            await expect(table.get_by_text("in force")).to_have_count(1)
            await expect(table.locator("tr").first).to_contain_text("in force")
            await expect(first).to_contain_text("the same rules")
            assert await first.get_by_role("button").count() == 0


async def test_where_reading_needs_a_token_it_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("read\n")
    secret.chmod(0o600)
    rules = tmp_path / "rules"
    rules.mkdir()
    async with open_shop(rules, read_token_file=str(secret)) as shop:
        await shop.visit(1, 5)
        async with opened(browser, shop.admin, noise="401") as page:
            dialog = page.get_by_role("dialog")
            await dialog.get_by_label("Token").fill("wrong")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("alert")).to_contain_text("this token is not known here")
            # Nothing that goes on by itself asks again: the dialog would be in the way of what is done here.
            await expect(page.locator("#state")).to_have_text("locked")
            await page.get_by_role("button", name="Token", exact=True).click()
            await dialog.get_by_label("Token").fill("read")
            await page.keyboard.press("Enter")
            await expect(page.locator("#rules-table tbody tr").first).to_be_visible()


@pytest.mark.parametrize("look", LOOKS)
async def test_every_look_is_readable(
    browser: Browser, shop: Shop, look: str, pytestconfig: pytest.Config
) -> None:
    async with opened(browser, shop.admin, look=look) as page:
        await expect(page.locator("#rules-table tbody tr").first).to_be_visible()
        await page.locator("#explain-form input[name=url]").fill(f"http://{HOST}/api/pitches/1")
        await page.locator("#explain-form button").click()
        await expect(page.locator("#explain-result pre")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        # WCAG 2.2: 4.5 to 1 for text; all that can be operated has a name.
        assert await page.evaluate(CONTRAST) == []
        fields = "[...document.querySelectorAll('input:not([hidden]), select, textarea')]"
        unnamed = f"{fields}.filter(field => !field.labels.length).length"
        assert await page.evaluate(unnamed) == 0
        pictures: str | None = pytestconfig.getoption("--page-pictures")
        if pictures and look != "phone":
            await page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
            await picture(page, Path(pictures) / f"page-{look}.webp")


async def picture(page: Page, path: Path) -> None:
    session = await page.context.new_cdp_session(page)
    shot: dict[str, Any] = await session.send("Page.captureScreenshot", {"format": "webp", "quality": 84})
    path.write_bytes(base64.b64decode(shot["data"]))  # noqa: ASYNC240 - a small file, at the end
