"""The list of seams on the real LightX2V: all are there, and a renamed one is named."""

import pytest

from tests.engines.test_lightx2v_seams import (  # noqa: F401 - the same, on the real one
    test_a_class_that_is_gone_is_named,
    test_a_name_of_ours_that_upstream_takes_is_named,
    test_a_renamed_one_is_named,
    test_all_are_there,
    test_one_that_takes_something_else_is_named,
)


@pytest.fixture
def upstream(lightx2v):
    return lightx2v
