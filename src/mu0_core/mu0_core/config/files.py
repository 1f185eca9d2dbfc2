"""Read and write configurations as YAML files."""

from pathlib import Path
from typing import Any, TypeVar

import yaml

from mu0_core.config.values import from_dict, to_dict
from mu0_core.errors import ConfigError

T = TypeVar("T")


def load_yaml(cls: type[T], path: str | Path) -> T:
    """Read a configuration from a YAML file.

    Raises:
        ConfigError: The file is missing, no YAML, has a key twice, or does not fit; the message
            names the file and all faults.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from error
    try:
        return from_dict(cls, {} if content is None else content)
    except ConfigError as error:
        raise ConfigError("\n  ".join([f"{path}:", *str(error).splitlines()])) from error


def dump_yaml(config: Any, path: str | Path) -> None:
    """Write a configuration, defaults included, as a YAML file that `load_yaml` reads back."""
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


class _StrictLoader(yaml.SafeLoader):
    """Refuse a key that stands twice, of which YAML would drop the first in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        doubled = {str(key) for key in keys if keys.count(key) > 1}
        if doubled:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {', '.join(sorted(doubled))} stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep)
