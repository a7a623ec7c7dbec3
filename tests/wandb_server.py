"""A W&B server on the loopback, as much of it as sweeps, runs and dashboards ask for.

It speaks the GraphQL operations and the file stream of the real one, hands out a sweep's grid and
keeps what it is told, for tests to look at. What it does not know is refused with status 400 and
noted in `complaints`; leaving the context fails if there are any.

Where W&B's rules matter they are those of its manual: a point of a grid is handed out once; a
run that was marked as preempting and ends with another exit code than 0 is handed out again.
"""

import base64
import gzip
import itertools
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Self

import yaml

ENTITY = "tester"
KEY = "0123456789abcdef" * 2 + "01234567"  # forty digits, as W&B's keys have
ASKED = frozenset({"host", "program", "repo", "debug", "commit"})  # of a run, and not kept

Json = dict[str, Any]
STREAMED = {
    "wandb-history.jsonl": "history",
    "wandb-events.jsonl": "events",
    "output.log": "output",
}


@dataclass
class Run:
    """What the server knows of a run.

    Attributes:
        name: its id, as clients say.
        config: values by name, without those that W&B adds.
        history: a row per logged step.
        state: "pending" (handed to an agent), "running", "finished", "failed", "preempted".
    """

    project: str
    name: str
    sweep: str | None = None
    group: str | None = None
    display_name: str | None = None
    config: Json = field(default_factory=dict)
    raw_config: str = "{}"
    summary: Json = field(default_factory=dict)
    history: list[Json] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "running"
    exit_code: int | None = None
    preempting: bool = False


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
    project: str = ""
    name: str = ""
    type: str = ""
    display_name: str = ""
    spec: Json = field(default_factory=dict)

    def described(self) -> Json:
        moment = "2026-01-01T00:00:00Z"
        return {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "displayName": self.display_name,
            "description": "",
            "project": {"id": self.project, "name": self.project, "entityName": ENTITY},
            "spec": json.dumps(self.spec),
            "user": {"username": ENTITY, "photoUrl": "", "email": ""},
            "createdAt": moment,
            "updatedAt": moment,
        }


class WandbServer:
    """The server, running while the context lasts.

    Args:
        key: what clients must present; another is refused with status 401.

    Attributes:
        url: for WANDB_BASE_URL.
        runs, sweeps, agents, views: what clients have told, by name; an agent's are its runs.
        project_names: of the projects that were made for dashboards.
        operations: every GraphQL operation by name, in order.
        status: what every request is answered with from now on; None for a healthy server.
        fails_after: the operation after which the status is 500.
        complaints: requests that it does not know.
    """

    def __init__(self, key: str = KEY) -> None:
        self.key = key
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, list[str]] = {}
        self.views: dict[str, View] = {}
        self.project_names: list[str] = []
        self.operations: list[str] = []
        self.complaints: list[str] = []
        self.status: int | None = None
        self.fails_after: str | None = None
        self.lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._agents_of: dict[str, Sweep] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def environment(self) -> dict[str, str]:
        """The variables that lead a client here."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": self.key,
            "WANDB_MODE": "online",
            "WANDB_ERROR_REPORTING": "false",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        if error is None:
            assert not self.complaints, self.complaints

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
        busy = any(json.loads(variables["runState"]).values())
        command = None if busy else self._next_command(agent)
        commands = [] if command is None else [command]
        return {"agentHeartbeat": {"agent": {"id": agent}, "commands": json.dumps(commands)}}

    def _next_command(self, agent: str) -> Json:
        sweep = self._agents_of[agent]
        if sweep.again:
            name, kind = sweep.again.pop(0), "resume"
            values = {key: self.runs[name].config[key] for key in sweep.config["parameters"]}
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

OPERATIONS: dict[str, Callable[[WandbServer, Json], Json]] = {
    "Viewer": WandbServer.viewer,
    "GetViewer": WandbServer.viewer,
    "GetDefaultEntity": WandbServer.viewer,
    "GetProjects": WandbServer.projects,
    "CreateProject": WandbServer.create_project,
    "ProjectInternalId": WandbServer.project_internal_id,
    "Workspaces": WandbServer.workspaces,
    "View": WandbServer.workspaces,
    "ProjectViews": WandbServer.reports,
    "UpsertView2": WandbServer.upsert_view,
    "upsertView": WandbServer.upsert_view,
    "ServerFeaturesQuery": WandbServer.server_features,
    "OrganizationCoreWeaveOrganizationID": WandbServer.organization,
    "RunResumeStatus": WandbServer.run_resume_status,
    "UpsertBucket": WandbServer.upsert_bucket,
    "CreateRunFiles": WandbServer.create_run_files,
    "SweepWithRuns": WandbServer.sweep_with_runs,
    "UpsertSweep": WandbServer.upsert_sweep,
    "CreateAgent": WandbServer.create_agent,
    "Heartbeat": WandbServer.heartbeat,
}


class _Server(ThreadingHTTPServer):
    """Threads end with the process, and clients may be killed without ceremony."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    """What answers the HTTP requests to a server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            if self._refused():
                return
            try:
                self._answer(200, self._answer_to(json.loads(body)))
            except Exception as error:  # also a mistake of this server's must not pass unseen
                complaint = f"{self.command} {self.path}: {type(error).__name__}: {error}"
                server.complaints.append(complaint)
                self._answer(400, {"errors": [{"message": complaint}]})

        def do_PUT(self) -> None:
            _, kind, run, *name = PurePosixPath(self.path).parts
            body = self._body()
            if kind == "storage" and run in server.runs:
                server.runs[run].files["/".join(name)] = body
                self._answer(200, {})
            else:
                self._unknown()

        def do_GET(self) -> None:
            self._unknown()

        def _answer_to(self, body: Json) -> Json:
            if self.path == "/graphql":
                return {"data": server.answer(body["query"], body.get("variables") or {})}
            stream = re.fullmatch(rf"/files/{ENTITY}/([\w-]+)/(\w+)/file_stream", self.path)
            if stream is None:
                raise LookupError("unknown address")
            server.stream(*stream.groups(), body)
            return {}

        def _refused(self) -> bool:
            """Whether the request has been answered with a refusal: out of order, or no key."""
            key = self.headers["Authorization"]
            if server.status is not None:
                self._answer(server.status, {"error": "out of order"})
            elif key != _basic(server.key):
                self._answer(401, {"errors": [{"message": "user is not logged in"}]})
            else:
                return False
            return True

        def _unknown(self) -> None:
            server.complaints.append(f"{self.command} {self.path}")
            self._answer(400, {"errors": [{"message": "unknown address"}]})

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            return gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body

        def _answer(self, status: int, content: Json) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler


def _basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"api:{key}".encode()).decode()
