"""`python -m shared.workspace --entity NAME`: the W&B page that compares Quintet's runs, as code.

It needs a login (`wandb login`) and `pip install wandb-workspaces`, and saves a workspace in the project `quintet` of
that entity: runs grouped by `group` (package, data set and variant, so that the seeds of a variant are one line with a
band), and panels for the losses, the validation AUROC and the throughput.

UNTESTED against the server: there is no login where Quintet is built (the page is made by wandb-workspaces 0.4.13).
Without an account, `make compare` shows the same on one page.
"""

from importlib import import_module
from types import ModuleType

from jsonargparse import auto_cli

from shared.runs.tracking import WANDB_PROJECT

PANELS = {
    "Validation": ("val/loss", "val/auroc"),
    "Training": ("train/loss",),
    "Throughput": ("throughput/samples_per_second", "throughput/data_wait", "throughput/peak_memory_gb"),
}


def main(entity: str, project: str = WANDB_PROJECT) -> str:
    """Save the comparison workspace and print its address.

    Args:
        entity: Your W&B user or team.
        project: W&B project that holds the runs.

    Returns:
        The workspace's address.
    """
    workspaces, reports = _import()
    sections = [
        workspaces.Section(
            name=name,
            panels=[reports.LinePlot(x="epoch", y=[metric], title=metric) for metric in metrics],
            is_open=True,
        )
        for name, metrics in PANELS.items()
    ]
    workspace = workspaces.Workspace(
        entity=entity,
        project=project,
        name="Quintet: comparison",
        sections=sections,
        runset_settings=workspaces.RunsetSettings(groupby=[workspaces.Metric("Group")]),
    )
    address = str(workspace.save().url)
    print(address)
    return address


def _import() -> tuple[ModuleType, ModuleType]:
    """wandb-workspaces' two modules.

    Raises:
        SystemExit: It is not installed.
    """
    try:
        workspaces = import_module("wandb_workspaces.workspaces")
        reports = import_module("wandb_workspaces.reports.v2")
    except ImportError as error:
        raise SystemExit("error: the comparison workspace needs: pip install wandb-workspaces") from error
    return workspaces, reports


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
