import pytest

from tests.page.stage import serving


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path) as server:
        yield server
