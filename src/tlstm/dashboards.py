"""W&B's workspace and report of this project, as code: python -m tlstm.dashboards.

The workspace compares the runs of the project, grouped by data, configuration and depth; the
report has a part for every figure and table, with its panels and its table of runs. The command
finds both by their names and updates them where they exist.
"""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import wandb
import wandb_workspaces.reports.v2 as report_api
import wandb_workspaces.workspaces as workspace_api
from wandb.sdk.lib.service.service_connection import WandbApiFailedError
from wandb_workspaces._graphql import execute_graphql, get_app_url

from tlstm.utils import CommandParser, project_name, refusals, refuse, run_main

NAME = "Tensorized LSTMs"
GROUPING = ("task", "label", "depth")
COLUMNS = (
    *(f"config:{name}.value" for name in (*GROUPING, "channels", "seed", "scale")),
    "summary:parameters",
    "summary:samples",
    "summary:samples_to_threshold",
    "summary:test/accuracy",
    "summary:test/bits_per_character",
    "summary:milliseconds_per_timestep",
    "summary:wall_seconds",
)

# The workspaces of a project; the library finds them by their internal names alone
WORKSPACES = """
query Workspaces($project: String!, $entity: String!) {
    project(name: $project, entityName: $entity) {
        allViews(viewType: "project-view", first: 100) {
            edges { node { name displayName } }
        }
    }
}
"""


class Part(NamedTuple):
    """A part of the report: a figure or a table of the paper, or a question of ours.

    Attributes:
        title: of the part.
        experiments: groups of W&B runs, as in runs/ and results/.
        curve: the metric of the learning curves.
        result: the metric to compare configurations by.
    """

    title: str
    experiments: tuple[str, ...]
    curve: str
    result: str


ACCURACY = ("validation/accuracy", "test/accuracy")
BITS = ("validation/bits_per_character", "test/bits_per_character")
SAMPLES = ("validation/accuracy", "samples_to_threshold")

PARTS = (
    Part("Figure 3: Wikipedia, bits per character by depth", ("fig3",), *BITS),
    Part("Figure 4 and Table 2: addition and memorization", ("fig4", "table2"), *SAMPLES),
    Part("Figure 5 and Table 3: sequential and permuted MNIST", ("fig5", "table3"), *ACCURACY),
    Part("Table 1: Wikipedia at the largest size", ("table1",), *BITS),
    Part("Ablations: feedback, memory-cell convolution, normalization", ("ablation",), *ACCURACY),
    Part("Depth at the same number of parameters", ("depth",), *ACCURACY),
    Part("Width", ("width",), *ACCURACY),
    Part("What the paper leaves open", ("choices",), *SAMPLES),
    Part("Addition, digit by digit", ("digits",), *SAMPLES),
    Part("Addition: a random search", ("search",), *SAMPLES),
    Part("Networks whose weights are in the repository", ("weights",), *BITS),
    Part("Beyond the paper: settings that take fewer samples", ("recipe",), *SAMPLES),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit code 2 and a sentence with the reason where W&B cannot be used."""
    parser = CommandParser(prog="python -m tlstm.dashboards", description=__doc__)
    parser.add_argument("--project", default="tlstm", help="of W&B, as logger.project [tlstm]")
    parser.add_argument("--entity", help="user or team [the account's own]")
    options = parser.parse_args(arguments)
    with refusals(ValueError):
        project = project_name("--project", options.project)
        entity = None if options.entity is None else project_name("--entity", options.entity)
    try:
        entity = entity or default_entity()
        urls = [save_workspace(entity, project), save_report(entity, project)]
    except (wandb.Error, WandbApiFailedError, ValueError) as error:
        refuse(f"W&B: {error}")
    print("\n".join(urls))
    return 0


def default_entity() -> str:
    """Return the user or team of the account.

    Raises:
        ValueError: nobody is logged in, or the account has neither.
        wandb.Error: W&B refuses the key.
    """
    if not wandb.login(prompt=False):
        raise ValueError(
            "nobody is logged in; `wandb login` or WANDB_API_KEY, with WANDB_MODE unset or online, "
            "mends that, and `tensorboard --logdir runs` needs no account"
        )
    entity = wandb.Api().default_entity
    if entity is None:
        raise ValueError("the account has no user or team of its own; --entity names one")
    return entity


def save_workspace(entity: str, project: str) -> str:
    """Create or update the workspace, and create a missing project; return its address."""
    api = wandb.Api()
    if project not in [found.name for found in api.projects(entity)]:
        api.create_project(project, entity)
    workspace = find_workspace(entity, project) or workspace_api.Workspace(
        entity=entity, project=project, name=NAME
    )
    workspace.sections = sections()
    workspace.settings = workspace_api.WorkspaceSettings(x_axis="samples", max_runs=100)
    workspace.runset_settings = workspace_api.RunsetSettings(
        groupby=[workspace_api.Config(name) for name in GROUPING], pinned_columns=list(COLUMNS)
    )
    url: str = workspace.save().url
    return url


def find_workspace(entity: str, project: str) -> workspace_api.Workspace | None:
    """Return the saved workspace with the changes of the user, None where there is none."""
    api = wandb.Api()
    found = execute_graphql(api, WORKSPACES, {"project": project, "entity": entity})
    nodes = [edge["node"] for edge in found["project"]["allViews"]["edges"]]
    names = [node["name"] for node in nodes if node["displayName"] == NAME]
    if not names:
        return None
    name = names[0].removeprefix("nw-").removesuffix("-v")
    address = f"{get_app_url(api).rstrip('/')}/{entity}/{project}?nw={name}"
    return workspace_api.Workspace.from_url(address)


def sections() -> list[workspace_api.Section]:
    """Return the panels of the workspace: a section for every result, and one for the runtime."""
    titles = {
        BITS: "Figure 3, Table 1: bits per character",
        SAMPLES: "Figure 4, Table 2: samples until solved",
        ACCURACY: "Figure 5, Table 3, ablations: accuracy",
    }
    compared = [
        workspace_api.Section(name=title, panels=[curves(curve), *comparison(result)], is_open=True)
        for (curve, result), title in titles.items()
    ]
    return [*compared, workspace_api.Section(name="Runtime", panels=runtime(), is_open=True)]


def save_report(entity: str, project: str) -> str:
    """Create or update the report; return its address."""
    report = report_api.Report(
        entity=entity,
        project=project,
        title=NAME,
        description="Every figure and table of the paper, from the runs of this project. "
        "The column scale tells runs at smoke scale from those at the paper's.",
        blocks=[block for part in PARTS for block in blocks(part, entity, project)],
        width="fluid",
    )
    saved = wandb.Api().reports(f"{entity}/{project}")
    report.id = next((earlier.id for earlier in saved if earlier.display_name == NAME), "")
    url: str = report.save().url
    return url


def blocks(part: Part, entity: str, project: str) -> list[Any]:
    """Return the heading, the panels and the table of runs of a part."""
    runs = report_api.Runset(
        entity=entity,
        project=project,
        name=part.title,
        filters=f"Metric('Group') in {list(part.experiments)}",
        groupby=[f"config.{name}" for name in GROUPING],
        pinned_columns=list(COLUMNS),
    )
    panels = [curves(part.curve), *comparison(part.result), *runtime()]
    return [report_api.H2(part.title), report_api.PanelGrid(runsets=[runs], panels=panels)]


def curves(metric: str) -> report_api.LinePlot:
    """Return learning curves over the training samples."""
    return report_api.LinePlot(title=f"{metric} by samples", x="samples", y=[metric])


def comparison(metric: str) -> list[Any]:
    """Return a metric by configuration, and by depth."""
    return [
        report_api.BarPlot(title=f"{metric} by configuration", metrics=[metric]),
        report_api.ScatterPlot(
            title=f"{metric} by depth",
            x=report_api.Config("depth"),
            y=report_api.SummaryMetric(metric),
        ),
    ]


def runtime() -> list[Any]:
    """Return milliseconds per timestep by configuration and depth."""
    return comparison("milliseconds_per_timestep")


if __name__ == "__main__":
    sys.exit(run_main(main))
