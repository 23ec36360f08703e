"""Makes what is derived in the chart: the table of values in its README, and in its schema the settings of the service.

`python helm/generate.py` writes them; with `--check` it fails if one differs. `make chart-files` runs it and renews the
golden renders.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from revocation import __version__
from revocation.config.settings import Config
from revocation.realms import REALM_NAME, RealmSettings

CHART = Path(__file__).parent / "revocation"
BY_THE_CHART = frozenset(
    {
        *("listen", "http_listen", "replica_id", "drain_s", "secret_file", "realms", "roles", "redis_url"),
        *(
            "redis_username",
            "redis_password_file",
            "redis_sentinel_password_file",
            "redis_ca",
            "redis_cert",
            "redis_key",
        ),
        *("tls_cert", "tls_key", "client_ca", "insecure", "allow_anonymous", "http_insecure"),
    }
)
"""Settings that the templates set from values of their own."""

NOT_IN_A_CLUSTER = frozenset({"embedded", "data_dir", "secret", "http_client_ca"})
"""No place in a cluster: a store in the pod, a secret in the clear, probes by kubelets that have no certificate."""

_ACK = {"type": "string", "pattern": "^(memory|fsynced|replicated:[1-9][0-9]?)$"}
_MARKS = ("<!-- values: made by helm/generate.py -->", "<!-- end of values -->")


def settings() -> tuple[str, ...]:
    """The settings of the service that `settings` in the values takes, by name."""
    return tuple(name for name in Config.model_fields if name not in BY_THE_CHART | NOT_IN_A_CLUSTER)


def schema(text: str) -> str:
    """The schema, with its definitions that come from the code of the service."""
    made: dict[str, Any] = json.loads(text)
    known = Config.model_json_schema()
    properties: dict[str, Any] = {
        name: {
            "description": Config.model_fields[name].description,
            **_simple(known["properties"][name], known["$defs"]),
        }
        for name in settings()
    }
    made["definitions"]["settings"] = {"type": "object", "additionalProperties": False, "properties": properties}
    realm = RealmSettings.model_json_schema()
    made["definitions"]["realms"] = {
        "type": "object",
        "maxProperties": 1000,
        "propertyNames": {"pattern": f"^{REALM_NAME.pattern}$"},
        "additionalProperties": _simple(realm, realm.get("$defs", {})),
    }
    return json.dumps(made, indent=2) + "\n"


def _simple(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without references, titles and defaults; what may be null may as well be left out."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return dict(_ACK) if name == "Ack" else _simple(definitions[name], definitions)
    if "anyOf" in node:
        (one,) = [kind for kind in node["anyOf"] if kind.get("type") != "null"]
        described = {"description": node["description"]} if "description" in node else {}
        return described | _simple(one, definitions)
    simple = {name: value for name, value in node.items() if name not in {"title", "default", "$defs", "properties"}}
    if "properties" in node:
        simple["properties"] = {name: _simple(part, definitions) for name, part in node["properties"].items()}
    return simple


def readme(text: str, values: str) -> str:
    """The README, with its table of values."""
    before, found, rest = text.partition(_MARKS[0])
    _, ended, after = rest.partition(_MARKS[1])
    if not found or not ended:
        raise SystemExit(f"README.md lacks the marks {_MARKS[0]} and {_MARKS[1]}")
    rows = ["| value | default | |", "|---|---|---|"]
    described = dict(_described(values))
    rows += [
        f"| `{path}` | `{default}` | {described.get(path, '')} |" for path, default in _leaves(yaml.safe_load(values))
    ]
    table = "\n".join(rows)
    return f"{before}{_MARKS[0]}\n\n{table}\n\n{_MARKS[1]}{after}"


def _described(values: str) -> Iterator[tuple[str, str]]:
    """Path of a value -> the comment above it that begins with `# --`."""
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in values.splitlines():
        if match := re.fullmatch(r"\s*# (?P<begins>-- )?(?P<text>.*)", line):
            comment = [match["text"]] if match["begins"] else [*comment, match["text"]] if comment else []
        elif match := re.match(r"(?P<indent> *)(?P<key>[A-Za-z]\w*):", line):
            path = [step for step in path if step[0] < len(match["indent"])]
            path.append((len(match["indent"]), match["key"]))
            if comment:
                yield ".".join(key for _, key in path), " ".join(comment).replace("|", "\\|")
            comment = []


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        path = f"{above}{name}"
        if isinstance(value, dict) and value and above.count(".") < 2 and not path.endswith(("resources", "Context")):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, json.dumps(value).replace("|", "\\|")


def made() -> dict[Path, str]:
    """Every file that is made or partly made here, and what it ought to hold."""
    values = (CHART / "values.yaml").read_text()
    chart = (CHART / "Chart.yaml").read_text()
    return {
        CHART / "values.schema.json": schema((CHART / "values.schema.json").read_text()),
        CHART / "README.md": readme((CHART / "README.md").read_text(), values),
        CHART / "Chart.yaml": re.sub(r"(?m)^appVersion: .*$", f'appVersion: "{__version__}"', chart),
    }


def main(arguments: list[str]) -> int:
    """Writes, or with --check compares. Returns the exit code."""
    stale = [path for path, text in made().items() if path.read_text() != text]
    if arguments == ["--check"]:
        for path in stale:
            print(f"{path.name} is not what helm/generate.py makes; run `make chart-files`", file=sys.stderr)
        return 1 if stale else 0
    for path, text in made().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
