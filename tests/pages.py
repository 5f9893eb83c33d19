"""The code blocks of README and of the documentation's pages, and how one page is run.

A page is run from top to bottom in one process, in a folder of its own: its `python` blocks share one
namespace, its `sh` blocks the folder. A comment in the page, `<!-- needs: model -->`, says which files of
`prepared` the folder must hold before; nothing can be left out.

    python -m tests.pages              how many pages and blocks there are
    python -m tests.pages run PAGE     run one page in the folder where one stands
"""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = ("python", "sh")
PLAIN = ("text", "json", "")
# Where programs that tests start keep what they compile.
CACHE = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NEEDS = re.compile(r"^<!-- needs: ([a-z, ]+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the line of the page where the text begins."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """One Markdown file with the blocks that are run."""

    path: Path
    name: str
    blocks: tuple[Block, ...]
    needs: frozenset[str]


def read(path: Path, *, root: Path = ROOT, run: tuple[str, ...] = RUN) -> Page:
    """Take a page apart. It is named from `root`; its blocks are those in the languages `run`.

    Raises:
        ValueError: a fence opens without closing, or a block is of a language that nothing here runs.
    """
    text = path.read_text()
    blocks = []
    for found in FENCE.finditer(text):
        language, content = found.groups()
        line = text.count("\n", 0, found.start(2)) + 1
        if language not in RUN + PLAIN:
            raise ValueError(
                f"{path}:{line}: {language!r} is run by no test; write one of {RUN + PLAIN}"
            )
        blocks.append(Block(language, content, line))
    if len(re.findall(r"^\s*```", text, re.MULTILINE)) != 2 * len(blocks):
        raise ValueError(f"{path}: a fence (```) opens or closes without its other half")
    needs = {word for line in NEEDS.findall(text) for word in re.split("[, ]+", line)}
    chosen = tuple(block for block in blocks if block.language in run)
    name = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    return Page(path, name, chosen, frozenset(needs))


def every_page() -> list[Page]:
    """README, CONTRIBUTING and all pages of the site, those without code too."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / "pages").rglob("*.md")]
    return [read(path) for path in sorted(paths)]


def run(page: Page) -> None:
    """Run a page's blocks in the present folder, and print how long each took.

    Raises:
        Exception: what a `python` block raised; its traceback names the page and the line.
        subprocess.CalledProcessError: a command of a `sh` block failed.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in page.blocks:
        start = time.perf_counter()
        if block.language == "python":
            source = "\n" * (block.line - 1) + block.text
            exec(compile(source, str(page.path), "exec"), namespace)
        else:
            subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], check=True)
        seconds = time.perf_counter() - start
        print(f"{page.name}:{block.line}: {block.language}, {seconds:.1f} s", flush=True)


def environment(folder: Path) -> dict[str, str]:
    """The environment in which a page is run: our commands first; `make` says what it would do.

    The targets of the Makefile are what runs these tests, so a page's `make demo` is only looked up, and
    fails if there is no such target.
    """
    tools = folder / ".tools"
    tools.mkdir()
    make = tools / "make"
    make.write_text(f'#!/bin/sh\nexec /usr/bin/make --dry-run -C "{ROOT}" "$@" >/dev/null\n')
    make.chmod(0o755)
    path = f"{tools}:{Path(sys.executable).parent}:/usr/bin:/bin"
    python = f"{ROOT}:{ROOT / 'export'}"
    settings = ("HOME", "LANG", "XLA_FLAGS", "TMPDIR", *CACHE)
    inherited = {name: value for name, value in os.environ.items() if name in settings}
    return {**inherited, "PATH": path, "PYTHONPATH": python, "MPLBACKEND": "Agg"}


def main(arguments: list[str]) -> None:
    """See the top of this file."""
    if arguments[:1] == ["run"]:
        run(read(Path(arguments[1])))
        return
    pages = every_page()
    for page in pages:
        counts = [sum(block.language == language for block in page.blocks) for language in RUN]
        print(f"{page.name:45}{counts[0]:4} python{counts[1]:4} sh")
    blocks = sum(len(page.blocks) for page in pages)
    print(
        f"{len(pages)} pages, {blocks} code blocks; tests/test_documentation.py runs each of them"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
