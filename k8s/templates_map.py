"""Writes `kustomization.yaml` into a folder of templates: a kustomize component with their ConfigMap.

The keys of a ConfigMap are flat, so `like/email.jinja` becomes `like__email.jinja`, and the volume of each
pod maps it back. `python3 k8s/templates_map.py [FOLDER]`; run it again when a file comes or goes. It needs
nothing but Python.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

READ = {".jinja", ".json", ".toml"}  # what notifier.rendering.files reads
LIMIT = 1_000_000  # bytes; etcd takes no more than 1 MiB in one object
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")

HEAD = """\
# Written by k8s/templates_map.py: the ConfigMap of these templates, and the way from its keys to folders.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component

configMapGenerator:
  - name: notifier-templates
    files:
"""
PATCH = """
patches:
  - target: {kind: Deployment, labelSelector: app.kubernetes.io/name=notifier}
    patch: |-
      apiVersion: apps/v1
      kind: Deployment
      metadata:
        name: any
      spec:
        template:
          spec:
            volumes:
              - name: templates
                configMap:
                  name: notifier-templates
                  items:
"""


def paths(folder: Path) -> list[str]:
    """Of the files that are read, below the folder."""
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in READ and path.is_file()]
    names = (path.relative_to(folder) for path in found)
    return [name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)]


def component(folder: Path) -> str:
    """The text of the kustomization. Raises ValueError when the folder can't be a ConfigMap."""
    keys: dict[str, str] = {}
    for path in paths(folder):
        key = path.replace("/", "__")
        if not KEY.fullmatch(key):
            raise ValueError(f"{path}: only letters, digits, '.', '_' and '-' can be in a ConfigMap's key")
        if key in keys:
            raise ValueError(f"{path} and {keys[key]} would have the same key, {key}")
        keys[key] = path
    if not keys:
        raise ValueError(f"{folder}: there is no template")
    if (size := sum((folder / path).stat().st_size for path in keys.values())) > LIMIT:
        raise ValueError(f"{folder}: {size} bytes, and a ConfigMap takes {LIMIT}; build an image with them")
    files = "".join(f"      - {key}={path}\n" for key, path in keys.items())
    items = "".join(f"                    - {{key: {key}, path: {path}}}\n" for key, path in keys.items())
    return HEAD + files + PATCH + items


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else Path(__file__).parent.parent / "templates"
    try:
        text = component(folder)
        (folder / "kustomization.yaml").write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"templates_map: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
