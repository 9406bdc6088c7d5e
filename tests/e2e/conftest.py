"""What the tests in a browser share."""

import pytest

from docs import screenshots


@pytest.fixture(scope="module")
def chromium():
    """A headless browser, for tests that have looked whether there is one."""
    with screenshots.browser() as found:
        yield found
