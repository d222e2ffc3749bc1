"""A page for several tests of a file: to open one takes more than a second of a core.

For tests that need no fresh page. Each brings it to where it begins, and looks at what it made itself: a test before
may have used the page, or none. A test that fails leaves it to nobody.
"""

import pytest
from playwright.sync_api import Page

from tests.ui.conftest import FAILED


@pytest.fixture(scope="module")
def kept_pages():
    """address -> the page that is kept for the next test of the file."""
    pages: dict[str, Page] = {}
    yield pages
    for page in pages.values():
        page.close()


@pytest.fixture
def used_page(open_new, kept_pages, request):
    """used_page(url): as `open_page`, but it may have been used. What it asks is answered with yes."""

    def used_page(url: str, width=1360, height=900) -> Page:
        if url not in kept_pages or kept_pages[url].is_closed():
            kept_pages[url] = open_new(url)
            kept_pages[url].on("dialog", lambda dialog: dialog.accept())
        page = kept_pages[url]
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        page.evaluate("window.scrollTo({ top: 0, behavior: 'instant' })")
        return page

    yield used_page
    if request.node.stash.get(FAILED, False):
        for page in kept_pages.values():
            page.close()
