"""The settings of a run as the files of conf/ describe them, read as text: this imports nothing."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGED = Path(__file__).parents[1] / "conf"
CONFIGURATIONS = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[3] / "conf"

# A group's files are named by the key; its settings have that key in front
GROUPS = {
    "task": "addition",
    "model": "tlstm_3d_cn",
    "initialization": "torch7",
    "sampling": "uniform",
    "trainer": "default",
    "logger": "default",
    "scale": "paper",
    "experiment": "scratch",
}
LINE = re.compile(r"(?P<indent> *)(?:(?P<key>\w+): *(?P<value>[^#]*?))? *(?:# *(?P<comment>.*))?")
OF_SWEEPS = ("scale.sweep", "scale.stand_ins", "experiment.sweep")  # what their values become
NO_SETTINGS = ("defaults", *(f"{group}.defaults" for group in GROUPS), *OF_SWEEPS)
COMMENTS_FROM = 10  # the column of a comment that goes on
WIDTH = 40  # of a setting before its comment


class Setting(NamedTuple):
    """A setting with its value where none is given, and what a comment says of it."""

    key: str
    value: str
    comment: str


def help_text() -> str:
    """Return every setting of a run in a line of its own, with what it means."""
    lines = ["key=value sets a value, and a group to the name of one of its files:", ""]
    for group, default in GROUPS.items():
        names = sorted((CONFIGURATIONS / group).glob("*.yaml"), key=lambda file: file.stem)
        files = [CONFIGURATIONS / group / f"{default}.yaml", *names]
        lines += [_line(f"{group}={file.stem}", _head(file)) for file in names]
        found = [setting for file in files for setting in _settings(file, group)]
        lines += ["", *_lines(found), ""]
    return "\n".join([*lines, *_lines([*_settings(CONFIGURATIONS / "config.yaml", "")])])


def _lines(settings: list[Setting]) -> list[str]:
    """Return a line for each setting: the value of the first, the first comment that there is."""
    first = {setting.key: setting for setting in reversed(settings)}
    said = {each.key: each.comment for each in reversed(settings) if each.comment}
    keys = dict.fromkeys(setting.key for setting in settings)
    return [_line(f"{key}={first[key].value}", said.get(key, "")) for key in keys]


def _line(setting: str, comment: str) -> str:
    return f"  {setting:<{WIDTH}}  {comment}".rstrip()


def _head(file: Path) -> str:
    """Return the first sentence of the comment at the head of a file."""
    head = itertools.takewhile(lambda line: line.startswith("# "), _lines_of(file))
    return " ".join(line.removeprefix("# ") for line in head).partition(". ")[0]


def _lines_of(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def _settings(file: Path, prefix: str) -> Iterator[Setting]:
    """Yield the settings of a file in its order, nested ones with dots.

    The comment of a setting stands behind it and goes on in lines of their own, or stands above it.
    """
    parents: list[tuple[int, str]] = [(-1, prefix)] if prefix else []
    setting, above = Setting("", "", ""), ""
    for line in itertools.dropwhile(lambda line: line.startswith("#"), _lines_of(file)):
        found = LINE.fullmatch(line)
        if found is None:  # within a list
            continue
        indent, key, comment = len(found["indent"]), found["key"], found["comment"] or ""
        if key is None and indent >= COMMENTS_FROM:
            setting = setting._replace(comment=f"{setting.comment} {comment}")
        elif key is None:
            above = comment
        else:
            if setting.value and not setting.key.startswith(NO_SETTINGS):
                yield setting
            parents = [(depth, name) for depth, name in parents if depth < indent]
            parents.append((indent, key))
            dotted = ".".join(name for _, name in parents)
            setting, above = Setting(dotted, found["value"], comment or above), ""
    if setting.value and not setting.key.startswith(NO_SETTINGS):
        yield setting
