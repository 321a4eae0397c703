"""Importing leaves the garbage collector as it was."""

import gc

import pytest

from trainkit.system.imports import quick_imports


def import_in_vain():
    with quick_imports():
        assert not gc.isenabled()
        import no_such_module_anywhere  # noqa: F401


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_looked_for_again_after_the_imports_also_after_one_that_fails(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ModuleNotFoundError):
            import_in_vain()
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
