"""The comparison workspace needs a login, so only what happens without its package is tested."""

import sys

import pytest

from shared.runs import workspace


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)  # so that importing it fails
    with pytest.raises(SystemExit) as stop:
        workspace.main("somebody")
    assert stop.value.code == "error: the comparison workspace needs: pip install wandb-workspaces"
