"""State and answers of W&B's server, as far as sweeps, runs and dashboards need them.

Where W&B's rules matter they are those of its manual: a point of a grid is handed out once; a
run that was marked as preempting and ends with another exit code than 0 is handed out again.
"""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

ENTITY = "tester"
HISTORY, EVENTS, OUTPUT = "wandb-history.jsonl", "wandb-events.jsonl", "output.log"
MOMENT = "2026-01-01T00:00:00Z"
LAST_PAGE = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}

Json = dict[str, Any]


@dataclass
class Run:
    """A run on the server.

    Attributes:
        name: its id, as clients say.
        values: of its configuration by name, also those that W&B adds.
        lines: of the files that it streams.
        stopped: by its button, or terminated early: its agent is told to stop it.
        state: "pending" (handed to an agent), "running", "finished", "failed", "preempted".
    """

    project: str
    name: str
    sweep: str | None = None
    group: str | None = None
    display_name: str | None = None
    values: Json = field(default_factory=dict)
    summary: Json = field(default_factory=dict)
    lines: dict[str, list[str]] = field(
        default_factory=lambda: {name: [] for name in (HISTORY, EVENTS, OUTPUT)}
    )
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "running"
    exit_code: int | None = None
    preempting: bool = False
    stopped: bool = False

    @property
    def config(self) -> Json:
        """The values without those that W&B adds."""
        return {key: value for key, value in self.values.items() if key != "_wandb"}

    @property
    def raw_config(self) -> str:
        """The values as clients write them."""
        return json.dumps({key: {"value": value} for key, value in self.values.items()})

    @property
    def history(self) -> list[Json]:
        """A row per logged step."""
        return [json.loads(line) for line in self.lines[HISTORY]]


@dataclass
class Sweep:
    """A grid and what of it is still to be handed out."""

    project: str
    name: str
    config: Json
    waiting: Iterator[Json]
    again: list[str] = field(default_factory=list)


@dataclass
class View:
    """A saved workspace (of the type "project-view") or report ("runs")."""

    id: str
    project: str
    name: str
    type: str
    display_name: str
    spec: Json

    def described(self) -> Json:
        return {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "displayName": self.display_name,
            "description": "",
            "project": _project(self.project),
            "spec": json.dumps(self.spec),
            "user": {"username": ENTITY, "photoUrl": "", "email": ""},
            "createdAt": MOMENT,
            "updatedAt": MOMENT,
        }


class Backend:
    """The answers to GraphQL operations and file streams, and what they have told.

    Args:
        url: where clients shall upload files to.

    Attributes:
        runs, sweeps, agents, views: what clients have told, by name; an agent's are its runs.
        project_names: of the projects that were made for dashboards.
        status: what every request is answered with from now on; None for a healthy server.
        fails_after: the operation after which the status is 500.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, list[str]] = {}
        self.views: dict[str, View] = {}
        self.project_names: list[str] = []
        self.status: int | None = None
        self.fails_after: str | None = None
        self._lock = threading.Lock()
        self._agents_of: dict[str, Sweep] = {}

    def answer(self, query: str, variables: Json) -> Json:
        """The data that a GraphQL request gets.

        Raises:
            LookupError: the operation is not known here.
        """
        found = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        operation = OPERATIONS.get(found.group(1)) if found else None
        if operation is None:
            raise LookupError(f"unknown operation: {' '.join(query.split())} {variables}")
        with self._lock:
            if found.group(1) == self.fails_after:
                self.status = 500
            return operation(self, variables)

    def stream(self, project: str, name: str, body: Json) -> None:
        """Take in what a run's file stream says; a KeyError names a file that is not known."""
        known = {"files", "preempting", "uploaded", "dropped", "complete", "exitcode"}
        assert body.keys() <= known, body
        with self._lock:
            run = self.runs[name]
            assert run.project == project
            for file, chunk in body.get("files", {}).items():
                offset, content = chunk["offset"], chunk["content"]
                if file == "wandb-summary.json":
                    run.summary = json.loads(content[-1])
                else:
                    run.lines[file][offset : offset + len(content)] = content
            run.preempting |= body.get("preempting", False)
            if body.get("complete", False):
                self._end(run, body["exitcode"])

    def _end(self, run: Run, exit_code: int) -> None:
        run.exit_code = exit_code
        if exit_code == 0:
            run.state = "finished"
        elif run.preempting and run.sweep is not None:
            run.state, run.preempting = "preempted", False
            self.sweeps[run.sweep].again.append(run.name)
        else:
            run.state = "failed"

    # GraphQL: queries

    def viewer(self, _: Json) -> Json:
        names = dict.fromkeys(("id", "entity", "username", "name", "email"), ENTITY)
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        rest = {"flags": "{}", "admin": False, "deletedAt": None, "apiKeys": {"edges": []}}
        return {"viewer": names | rest | {"teams": teams}}

    def server_features(self, _: Json) -> Json:
        return {"serverInfo": {"features": []}}

    def organization(self, _: Json) -> Json:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def run_resume_status(self, variables: Json) -> Json:
        run = self.runs.get(variables["name"])
        bucket = None
        if run is not None and run.state != "pending":
            bucket = _bucket(run) | {
                "summaryMetrics": json.dumps(run.summary),
                "logLineCount": len(run.lines[OUTPUT]),
                "eventsLineCount": len(run.lines[EVENTS]),
                "historyTail": json.dumps(run.lines[HISTORY][-1:]),
                "eventsTail": json.dumps(run.lines[EVENTS][-1:]),
                "tags": [],
                "notes": None,
                "wandbConfig": json.dumps({"t": 1}),
            }
        return {"model": _project(variables["project"]) | {"bucket": bucket}}

    def sweep_with_runs(self, variables: Json) -> Json:
        sweep = self.sweeps[variables["sweep"]]
        found = {"id": sweep.name, "name": sweep.name, "config": yaml.safe_dump(sweep.config)}
        return {"project": {"sweep": found | {"state": "RUNNING", "runs": {"edges": []}}}}

    def projects(self, _: Json) -> Json:
        edges = [{"node": _project(name)} for name in self.project_names]
        return {"models": {"pageInfo": LAST_PAGE, "edges": edges}}

    def project_internal_id(self, variables: Json) -> Json:
        name = variables["projectName"]
        assert name in self.project_names
        return {"project": {"id": name, "internalId": name}}

    def workspaces(self, variables: Json) -> Json:
        """All, or the one with an internal name."""
        return self._views_of_type("project-view", variables.get("viewName"))

    def reports(self, variables: Json) -> Json:
        return self._views_of_type("runs", variables.get("viewName"))

    def _views_of_type(self, kind: str, name: str | None) -> Json:
        edges = [
            {"node": view.described(), "cursor": view.id}
            for view in self.views.values()
            if view.type == kind and name in (None, view.name)
        ]
        return {"project": {"allViews": {"edges": edges, "pageInfo": LAST_PAGE}}}

    # GraphQL: projects and views

    def create_project(self, variables: Json) -> Json:
        name = variables["input"]["name"]
        self.project_names.append(name)
        made = _project(name) | {"description": None, "access": None, "views": None}
        return {"result": {"project": made, "model": made, "inserted": True}}

    def upsert_view(self, variables: Json) -> Json:
        assert variables["projectName"] in self.project_names
        given = variables.get("id")
        own = (variables[key] for key in ("projectName", "name", "type", "displayName"))
        view = View(given or f"view{len(self.views)}", *own, json.loads(variables["spec"]))
        self.views[view.id] = view
        return {"upsertView": {"view": view.described(), "inserted": not given}}

    # GraphQL: runs, sweeps, agents

    def upsert_bucket(self, variables: Json) -> Json:
        name = variables["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run(variables["project"], name))
        run.sweep = variables.get("sweep") or run.sweep
        run.group = variables.get("groupName") or run.group
        run.display_name = variables.get("displayName") or run.display_name
        if variables.get("config"):
            config = json.loads(variables["config"])
            run.values = {key: part["value"] for key, part in config.items()}
        if variables.get("summaryMetrics"):
            run.summary = json.loads(variables["summaryMetrics"])
        if run.state in ("pending", "preempted"):
            run.state = "running"
        own = {"description": None, "sweepName": run.sweep, "project": _project(run.project)}
        return {"upsertBucket": {"bucket": _bucket(run) | own, "inserted": inserted}}

    def create_run_files(self, variables: Json) -> Json:
        place = f"{self.url}/storage/{variables['run']}"
        files = [{"name": name, "uploadUrl": f"{place}/{name}"} for name in variables["files"]]
        made = {"runID": variables["run"], "uploadHeaders": [], "files": files}
        return {"createRunFiles": made}

    def run_stopped(self, variables: Json) -> Json:
        return {"project": {"run": {"stopped": self.runs[variables["runId"]].stopped}}}

    def upsert_sweep(self, variables: Json) -> Json:
        config, project = yaml.safe_load(variables["config"]), variables["projectName"]
        name = f"sweep{len(self.sweeps)}"
        choices = [part.get("values") or [part["value"]] for part in config["parameters"].values()]
        grid = (
            dict(zip(config["parameters"], point, strict=True))
            for point in itertools.product(*choices)
        )
        self.sweeps[name] = Sweep(project, name, config, grid)
        made = {"name": name, "project": _project(project)}
        return {"upsertSweep": {"sweep": made, "configValidationWarnings": []}}

    def create_agent(self, variables: Json) -> Json:
        agent = f"agent{len(self.agents)}"
        self.agents[agent] = []
        self._agents_of[agent] = self.sweeps[variables["sweep"]]
        return {"createAgent": {"agent": {"id": agent}}}

    def heartbeat(self, variables: Json) -> Json:
        """One run at a time for each agent, until the grid is exhausted."""
        agent = variables["id"]
        runs = [self.runs[name] for name in self.agents[agent]]
        stopped = [run for run in runs if run.stopped and run.state == "running"]
        commands = [{"type": "stop", "run_id": run.name} for run in stopped]
        if not commands and not any(json.loads(variables["runState"]).values()):
            commands = [self._next_command(agent)]
        return {"agentHeartbeat": {"agent": {"id": agent}, "commands": json.dumps(commands)}}

    def _next_command(self, agent: str) -> Json:
        sweep = self._agents_of[agent]
        if sweep.again:
            name, kind = sweep.again.pop(0), "resume"
            values = self.runs[name].values  # all of it, W&B's own too
        elif values := next(sweep.waiting, {}):
            name, kind = f"{sweep.name}run{len(self.runs)}", "run"
            self.runs[name] = Run(sweep.project, name, sweep.name, state="pending")
        else:
            return {"type": "exit"}
        self.agents[agent].append(name)
        arguments = {key: {"value": value} for key, value in values.items()}
        program = sweep.config["program"]
        return {"type": kind, "run_id": name, "program": program, "args": arguments}


def _bucket(run: Run) -> Json:
    return {
        "id": run.name,
        "name": run.name,
        "displayName": run.display_name,
        "config": run.raw_config,
        "historyLineCount": len(run.lines[HISTORY]),
    }


def _project(name: str) -> Json:
    return {
        "__typename": "Project",
        "id": name,
        "name": name,
        "entity": {"id": ENTITY, "name": ENTITY},
        "entityName": ENTITY,
        "createdAt": MOMENT,
        "isBenchmark": False,
        "user": None,
    }


OPERATIONS: dict[str, Callable[[Backend, Json], Json]] = {
    "Viewer": Backend.viewer,
    "GetViewer": Backend.viewer,
    "GetDefaultEntity": Backend.viewer,
    "GetProjects": Backend.projects,
    "CreateProject": Backend.create_project,
    "ProjectInternalId": Backend.project_internal_id,
    "Workspaces": Backend.workspaces,
    "View": Backend.workspaces,
    "ProjectViews": Backend.reports,
    "UpsertView2": Backend.upsert_view,
    "upsertView": Backend.upsert_view,
    "ServerFeaturesQuery": Backend.server_features,
    "OrganizationCoreWeaveOrganizationID": Backend.organization,
    "RunResumeStatus": Backend.run_resume_status,
    "UpsertBucket": Backend.upsert_bucket,
    "RunStoppedStatus": Backend.run_stopped,
    "CreateRunFiles": Backend.create_run_files,
    "SweepWithRuns": Backend.sweep_with_runs,
    "UpsertSweep": Backend.upsert_sweep,
    "CreateAgent": Backend.create_agent,
    "Heartbeat": Backend.heartbeat,
}
