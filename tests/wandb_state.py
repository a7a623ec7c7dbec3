"""Runs, sweeps and views of the local W&B server."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ENTITY = "tester"

Json = dict[str, Any]


@dataclass
class Run:
    """A run on the server.

    Attributes:
        name: its id, as clients say.
        config: values by name, without those that W&B adds.
        history: a row per logged step.
        stopped: by its button, or terminated early: its agent is told to stop it.
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
    stopped: bool = False


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
