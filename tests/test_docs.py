"""The pages made from the code agree with it."""

import importlib.util

from conftest import ROOT


def test_the_configuration_page_is_that_of_the_schema() -> None:
    """docs/configuration.md is what `make docs` would write now."""
    path = ROOT / "docs/make_configuration.py"
    spec = importlib.util.spec_from_file_location("make_configuration", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/configuration.md").read_text() == module.page(), "run `make docs`"
