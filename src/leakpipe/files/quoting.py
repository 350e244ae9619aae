"""Text that other languages read: paths that users write, words for a shell, patterns of Snakemake.

Nobody else quotes: whatever is put into a shell command, YAML, a pattern of Snakemake or an address of sqlite
(`leakpipe.tracking.store.database_file`) goes through one of these.
"""

import json
import os.path
import re
import shlex
from pathlib import Path


def as_path(text: str) -> Path:
    """Returns the path that a user writes in the parameters or the environment; `~` is a home folder.

    A `~name` of nobody stays as it is, and is then reported as a path that does not exist.
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser fails where there is no such user


def for_shell(*words: str) -> str:
    """Returns words as a POSIX shell reads them, whatever characters they hold."""
    return shlex.join(words)


def explain_braces(field: str, path: str) -> str | None:
    """Returns why a path cannot be an input of Snakemake's, None if it can: there is no way to quote its wildcards."""
    if re.search(r"[{}]", path):
        return f"{field}: {path!r} has braces, which Snakemake takes for wildcards of an input file: rename it"
    return None


def for_yaml(text: str) -> str:
    """Returns text as a quoted scalar of YAML; what is no Unicode, as some files' names, is escaped."""
    return json.dumps(text, ensure_ascii=False).encode(errors="backslashreplace").decode()


def for_snakemake(text: str) -> str:
    """Returns text that Snakemake formats back to `text`: braces are doubled."""
    return text.replace("{", "{{").replace("}", "}}")
