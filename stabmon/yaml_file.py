"""YAML files that people write, read with limits: no key twice, no file that grows as it is read."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node

from stabmon.errors import ConfigError

LARGEST = 1 << 20
"""Most bytes of a file."""
DEEPEST = 20
"""Most levels of nesting; a configuration has two."""
MOST = 20_000
"""Most values of a file, each alias counted with all that it stands for; the matrix of ``evaluate`` has 900."""


def read(path: str | Path, what: str, instead: str = "give a YAML file") -> Any:
    """Return what the YAML file ``path`` holds.

    what: the file's role in messages: "the configuration".
    instead: what to do where it cannot be read.

    Raises:
        ConfigError: it cannot be read, is no YAML, is too large or too deep, or has a key twice.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigError(f"cannot read {what} {path}: it has more than {LARGEST} bytes; {instead}")
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror or error}; {instead}") from error
    except ValueError as error:
        raise ConfigError(f"cannot read {what} {path}: {error}; {instead}") from error
    try:
        return yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, ValueError) as error:  # a date or a number that there is not, is a ValueError
        raise ConfigError(f"{path} is not valid YAML: {error}") from error


class Loader(yaml.SafeLoader):
    """YAML as people write it: YAML 1.1 reads ``1e-3`` as text, because it has no dot; people mean a number."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose one node, counting what it holds: an alias as much as what it stands for."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark, is_alias = event.start_mark, isinstance(event, yaml.AliasEvent)
        before, self._depth = self._values, self._depth + 1
        if self._depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"nested more than {DEEPEST} deep", mark)
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "an alias inside of what it stands for", mark)
        self._values += self._sizes[id(node)] if is_alias else 1
        self._sizes.setdefault(id(node), self._values - before)
        if self._values > MOST:
            raise yaml.composer.ComposerError(None, None, f"more than {MOST} values", mark)
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping whose keys are all different."""
        keys: set[Any] = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key.value, str) else id(key)
            if name in keys:
                problem = f"the key {key.value!r} stands here twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            keys.add(name)
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {key: list(found) for key, found in yaml.SafeLoader.yaml_implicit_resolvers.items()}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
