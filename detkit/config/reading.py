"""From YAML files and overrides to checked configurations."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from detkit.config.comparison import ComparisonConfig
from detkit.config.experiment import Config
from detkit.config.gate import Gate
from detkit.config.search import SearchConfig
from detkit.config.values import Section
from detkit.errors import ConfigError

DATA_ROOT_VARIABLE = "DETKIT_DATA_ROOT"
Checked = TypeVar("Checked", bound=Section)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 1e-3 is a number and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a name", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_config(
    path: str | os.PathLike,
    overrides: Sequence[str] = (),
    *,
    data_root: str | None = None,
    output: str | None = None,
) -> Config:
    """Read and check an experiment.

    Args:
        path: a YAML file.
        overrides: ``section.key=value`` texts, the value written as in YAML; the last one wins.
        data_root: replaces ``data.root``; where that is null, DETKIT_DATA_ROOT does.
        output: replaces ``output``.

    Raises:
        ConfigError: the file cannot be read, or any key is unknown, of a wrong type or out of range; every
            mistake is in the one message.
    """
    tree = read_tree(path, overrides)
    if output is not None:
        tree["output"] = output
    return parse_config(with_data_root(tree, data_root), source=str(path))


def load_comparison(path: str | os.PathLike, overrides: Sequence[str] = ()) -> ComparisonConfig:
    """Read and check a comparison, but not the experiment of its arms.

    Raises:
        ConfigError: as of ``load_config``.
    """
    return _checked(ComparisonConfig, read_tree(path, overrides), source=str(path))


def load_search(path: str | os.PathLike, overrides: Sequence[str] = ()) -> SearchConfig:
    """Read and check a search, but not the experiment of its trials.

    Raises:
        ConfigError: as of ``load_config``.
    """
    return _checked(SearchConfig, read_tree(path, overrides), source=str(path))


def load_gate(path: str | os.PathLike) -> Gate:
    """Read and check a quality gate.

    Raises:
        ConfigError: as of ``load_config``.
    """
    return _checked(Gate, read_tree(path), source=str(path))


def read_tree(path: str | os.PathLike, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML file as nested dicts, with ``section.key=value`` texts applied, but not checked.

    Raises:
        ConfigError: the file cannot be read, or an override is none.
    """
    tree = _read_yaml(Path(path))
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{override!r}: an override is written section.key=value")
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError:
            raise ConfigError(f"{override!r}: the value is not YAML") from None
        set_key(tree, name.strip(), value)
    return tree


def set_key(tree: dict[str, Any], name: str, value: Any) -> None:
    """Set one key of a tree, given by its full name.

    Raises:
        ConfigError: a part of the name is no section.
    """
    *sections, key = name.split(".")
    for depth, section in enumerate(sections):
        if tree.get(section) is None:
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise ConfigError(f"{name!r}: {'.'.join(sections[: depth + 1])} has no keys of its own")
    tree[key] = value


def with_data_root(tree: dict[str, Any], data_root: str | None) -> dict[str, Any]:
    """The tree with ``data.root`` replaced; without one of its own or given, DETKIT_DATA_ROOT is it."""
    data = tree.get("data")
    if not isinstance(data, dict):
        return tree
    root = data_root or data.get("root") or os.environ.get(DATA_ROOT_VARIABLE)
    return {**tree, "data": {**data, "root": root}}


def parse_config(tree: Any, *, source: str) -> Config:
    """Check an already parsed tree (of a YAML file or a checkpoint); ``source`` names it in errors."""
    return _checked(Config, tree, source=source)


def dump_config(config: Section) -> str:
    """The configuration as YAML, every key written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110)


def _checked(kind: type[Checked], tree: Any, *, source: str) -> Checked:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError("\n".join([f"{source}: {len(lines)} mistake(s)", *lines])) from None


def _read_yaml(path: Path) -> dict:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds {type(tree).__name__}, not the keys of an experiment")
    return tree


def _explain(item: Any) -> str:
    """One line for one of pydantic's errors."""
    where = ".".join(str(part) for part in item["loc"]) or "(the whole)"
    if item["type"] == "extra_forbidden":
        return f"  {where}: there is no such key"
    if item["type"] == "missing":
        return f"  {where}: is missing"
    found = f", found {item['input']!r}" if not isinstance(item["input"], dict) else ""
    message = item["msg"].removeprefix("Value error, ")
    return f"  {where}: {message[0].lower()}{message[1:]}{found}"
