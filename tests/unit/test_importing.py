"""Importing without looking for garbage: afterwards it is looked for as before."""

import gc

import pytest

from wan_ui.importing import no_collection


def test_garbage_is_looked_for_again_after_an_import_that_fails_too():
    gc.enable()
    with pytest.raises(ImportError), no_collection():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled(), "who had turned it off keeps it off"
    finally:
        gc.enable()
