"""State and answers of W&B's server, as far as sweeps, runs and dashboards need them.

Where W&B's rules matter they are those of its manual: a point of a grid is handed out once; a
run that was marked as preempting and ends with another exit code than 0 is handed out again.
"""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping

import yaml

from wandb_state import ENTITY, Json, Run, Sweep, View

STREAMED = {
    "wandb-history.jsonl": "history",
    "wandb-events.jsonl": "events",
    "output.log": "output",
}


class Backend:
    """The answers to GraphQL operations and file streams, and what they have told.

    Args:
        url: where clients shall upload files to.

    Attributes:
        runs, sweeps, agents, views: what clients have told, by name; an agent's are its runs.
        project_names: of the projects that were made for dashboards.
        operations: every GraphQL operation by name, in order.
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
        self.operations: list[str] = []
        self.status: int | None = None
        self.fails_after: str | None = None
        self.lock = threading.Lock()
        self._agents_of: dict[str, Sweep] = {}

    def answer(self, query: str, variables: Json) -> Json:
        """The data that a GraphQL request gets.

        Raises:
            LookupError: the operation is not known here.
        """
        found = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        name = found.group(1) if found else query
        operation = OPERATIONS.get(name)
        if operation is None:
            raise LookupError(f"unknown operation: {' '.join(query.split())} {variables}")
        with self.lock:
            self.operations.append(name)
            if name == self.fails_after:
                self.status = 500
            return operation(self, variables)

    def stream(self, project: str, name: str, body: Json) -> None:
        """Take in what a run's file stream says."""
        with self.lock:
            run = self.runs[name]
            assert run.project == project
            for file, chunk in body.pop("files", {}).items():
                self._stream_file(run, file, chunk["offset"], chunk["content"])
            run.preempting |= body.pop("preempting", False)
            for ignored in ("uploaded", "dropped"):
                body.pop(ignored, None)
            if body.pop("complete", False):
                self._end(run, body.pop("exitcode"))
            if body:
                raise LookupError(f"unknown in a file stream: {body}")

    def _stream_file(self, run: Run, file: str, offset: int, content: list[str]) -> None:
        if file == "wandb-summary.json":
            run.summary = json.loads(content[-1])
        elif file in STREAMED:
            lines = getattr(run, STREAMED[file])
            is_json = file.endswith(".jsonl")
            lines[offset : offset + len(content)] = (
                [json.loads(line) for line in content] if is_json else content
            )
        else:
            raise LookupError(f"unknown streamed file: {file}")

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

    def viewer(self, variables: Json) -> Json:
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        return {
            "viewer": {
                "id": "viewer",
                "entity": ENTITY,
                "username": ENTITY,
                "email": f"{ENTITY}@localhost",
                "flags": "{}",
                "teams": teams,
                "name": ENTITY,
                "admin": False,
                "deletedAt": None,
                "apiKeys": {"edges": []},
            }
        }

    def server_features(self, variables: Json) -> Json:
        return {"serverInfo": {"features": []}}

    def organization(self, variables: Json) -> Json:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def run_resume_status(self, variables: Json) -> Json:
        run = self.runs.get(variables["name"])
        model = {"id": variables["project"], "name": variables["project"], "entity": _entity()}
        if run is None or run.state == "pending":
            return {"model": model | {"bucket": None}}
        bucket = {
            "id": run.name,
            "name": run.name,
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.display_name,
            "logLineCount": len(run.output),
            "historyLineCount": len(run.history),
            "eventsLineCount": len(run.events),
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "eventsTail": json.dumps([json.dumps(row) for row in run.events[-1:]]),
            "config": run.raw_config,
            "tags": [],
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {"model": model | {"bucket": bucket}}

    def sweep_with_runs(self, variables: Json) -> Json:
        sweep = self.sweeps[variables["sweep"]]
        found = {"id": sweep.name, "name": sweep.name, "config": yaml.safe_dump(sweep.config)}
        return {"project": {"sweep": found | {"state": "RUNNING", "runs": {"edges": []}}}}

    def projects(self, variables: Json) -> Json:
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
        inserted = not given
        view = self.views[given] if given else View(f"view{len(self.views)}")
        view.name, view.type = variables["name"], variables["type"]
        view.display_name, view.project = variables["displayName"], variables["projectName"]
        view.spec = json.loads(variables["spec"])
        self.views[view.id] = view
        return {"upsertView": {"view": view.described(), "inserted": inserted}}

    # GraphQL: runs, sweeps, agents

    def upsert_bucket(self, variables: Json) -> Json:
        name = variables["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run(variables["project"], name))
        run.sweep = variables.get("sweep") or run.sweep
        run.group = variables.get("groupName") or run.group
        run.display_name = variables.get("displayName") or run.display_name
        if variables.get("config"):
            run.raw_config = variables["config"]
            values = {key: part["value"] for key, part in json.loads(run.raw_config).items()}
            run.config = {key: value for key, value in values.items() if key != "_wandb"}
        if variables.get("summaryMetrics"):
            run.summary = json.loads(variables["summaryMetrics"])
        if run.state in ("pending", "preempted"):
            run.state = "running"
        project = {"id": run.project, "name": run.project, "entity": _entity()}
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.display_name,
            "description": None,
            "config": run.raw_config,
            "sweepName": run.sweep,
            "project": project,
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def create_run_files(self, variables: Json) -> Json:
        place = f"{self.url}/storage/{variables['run']}"
        files = [{"name": name, "uploadUrl": f"{place}/{name}"} for name in variables["files"]]
        made = {"runID": variables["run"], "uploadHeaders": [], "files": files}
        return {"createRunFiles": made}

    def run_stopped(self, variables: Json) -> Json:
        return {"project": {"run": {"stopped": self.runs[variables["runId"]].stopped}}}

    def upsert_sweep(self, variables: Json) -> Json:
        config = yaml.safe_load(variables["config"])
        name = f"sweep{len(self.sweeps)}"
        project = variables["projectName"]
        self.sweeps[name] = Sweep(project, name, config, iter(list(_grid(config["parameters"]))))
        described = {"id": project, "name": project, "entity": _entity()}
        return {
            "upsertSweep": {
                "sweep": {"name": name, "project": described},
                "configValidationWarnings": [],
            }
        }

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
            config = json.loads(self.runs[name].raw_config)  # all of it, W&B's own too
            values = {key: part["value"] for key, part in config.items()}
        else:
            values = next(sweep.waiting, {})
            name, kind = f"{sweep.name}run{len(self.runs)}", "run" if values else "exit"
        if kind == "exit":
            return {"type": "exit"}
        if kind == "run":
            self.runs[name] = Run(sweep.project, name, sweep.name, state="pending")
        self.agents[agent].append(name)
        arguments = {key: {"value": value} for key, value in values.items()}
        program = sweep.config["program"]
        return {"type": kind, "run_id": name, "program": program, "args": arguments}


def _entity() -> Json:
    return {"id": ENTITY, "name": ENTITY}


def _project(name: str) -> Json:
    return {
        "__typename": "Project",
        "id": name,
        "name": name,
        "entityName": ENTITY,
        "createdAt": "2026-01-01T00:00:00Z",
        "isBenchmark": False,
        "user": None,
    }


def _grid(parameters: Mapping[str, Json]) -> Iterator[Json]:
    """Every point of a sweep's parameters."""
    choices = [part.get("values") or [part["value"]] for part in parameters.values()]
    for point in itertools.product(*choices):
        yield dict(zip(parameters, point, strict=True))


LAST_PAGE = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}

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
