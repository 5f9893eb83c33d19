"""What users read runs, and names what there is."""

import dataclasses
import importlib.util
import inspect
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import docstring_parser
import pytest
import tyro
from filelock import FileLock

from diffusion_eqx import config
from diffusion_eqx.cli import main
from tests import pages, prepared

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "pages"
CONFIGURATIONS = [kind for kind in vars(config).values() if dataclasses.is_dataclass(kind)]
COMMANDS = [
    *(["train", "--kind", kind] for kind in ("ddim", "ddpm", "score", "dit", "latent")),
    *(["train", "--kind", kind] for kind in ("progressive", "consistency", "consistency-training")),
    *(["train-classifier"], ["sample"], ["evaluate"], ["samplers"], ["info"]),
]
# Pages that the build makes, and the sources that they are made of.
MADE = {"format.md": ROOT / "export" / "FORMAT.md", "reference": ROOT / "docs" / "hooks.py"}


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """The folder of prepared files, made once for all processes that run tests."""
    folder = tmp_path_factory.getbasetemp().parent / "documentation"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            prepared.make(folder)
    return folder


def parameters() -> list:
    """Every page that has code, marked by what it takes to run it."""
    found = []
    for page in pages.every_page():
        if page.blocks:
            native = any("diffusion-sampler" in block.text for block in page.blocks)
            marks = [pytest.mark.slow, *([pytest.mark.native] if native else [])]
            found.append(pytest.param(page, id=page.name, marks=marks))
    return found


@pytest.mark.long
@pytest.mark.parametrize("page", parameters())
def test_every_block_of_a_page_runs(page, files, tmp_path):
    for need in page.needs:
        shutil.copytree(files / need, tmp_path, dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.pages", "run", str(page.path)],
        cwd=tmp_path,
        env=pages.environment(tmp_path),
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-5000:]}"
    assert len(re.findall(rf"^{re.escape(page.name)}:\d+: ", done.stdout, re.M)) == len(page.blocks)


def test_every_page_asks_for_files_that_are_prepared():
    needed = {need for page in pages.every_page() for need in page.needs}
    assert needed <= prepared.MAKERS.keys()


def test_a_page_with_a_wrong_block_fails(tmp_path):
    (tmp_path / "wrong.md").write_text("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError):
        pages.run(pages.read(tmp_path / "wrong.md", root=tmp_path))
    (tmp_path / "shell.md").write_text("```sh\nfalse | true\n```\n")
    with pytest.raises(subprocess.CalledProcessError):
        pages.run(pages.read(tmp_path / "shell.md", root=tmp_path))


@pytest.mark.parametrize(
    "text",
    ["```pyhton\nx = 1\n```\n", "```python\nx = 1\n", "- a list\n\n  ```python\n  x = 1\n  ```\n"],
)
def test_a_block_that_would_not_be_run_is_refused(tmp_path, text):
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ValueError, match=r"page\.md"):
        pages.read(tmp_path / "page.md")


def test_code_is_marked_as_code():
    """A block without a language is a formula, so nothing in it may look like Python or a command."""
    for page in pages.every_page():
        for block in pages.read(page.path, run=pages.PLAIN).blocks:
            looks = re.search(r"^(import|from|make|diffusion-|pip|\$|>>>) ?", block.text, re.M)
            assert not looks, f"{page.name}:{block.line}: mark this block as python or sh"


def test_getting_started_takes_no_more_than_thirty_lines():
    for block in pages.read(SITE / "getting-started.md").blocks:
        lines = [line for line in block.text.splitlines() if line.strip()]
        assert len(lines) <= 30


def test_the_tables_of_samplers_are_what_the_library_says():
    """They are made by `make docs-figures`."""
    specification = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert specification is not None
    assert specification.loader is not None
    tables = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tables)
    page = (SITE / "samplers.md").read_text()
    assert tables.made(page) == page, "run make docs-figures"
    assert tables.made(page.replace("temperature", "warmth")) == page
    for name in tables.TABLES:
        assert f"<!-- made: {name} -->" in page


def test_every_capability_names_tests_and_examples_that_exist():
    page = (SITE / "capabilities.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| [A-D]\d+ \|", line)]
    assert [row.split("|")[1].strip() for row in rows] == [
        *(f"A{i}" for i in range(1, 12)),
        *(f"B{i}" for i in range(1, 8)),
        *(f"C{i}" for i in range(1, 9)),
        *(f"D{i}" for i in range(1, 7)),
    ]
    executed = (ROOT / "tests" / "test_examples.py").read_text()
    for row in rows:
        tests = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        examples = re.findall(r"`(\w+)\.py` →", row)
        assert tests or examples, row
        for file, name in tests:
            assert re.search(rf"^ *def {name}\(", (ROOT / "tests" / file).read_text(), re.M), name
        for name in examples:
            assert (ROOT / "examples" / f"{name}.py").exists(), name
            assert f'run("{name}"' in executed, name


def test_links_and_pictures_are_there():
    texts = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("*/*.md"),
        *SITE.rglob("*.md"),
    ]
    links = [
        (page, link.partition("#")[0])
        for page in texts
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if "://" not in link and not link.startswith("#")
    ]
    assert len(links) > 20
    missing = []
    for page, link in links:
        target = (page.parent / link).resolve()
        made = target.is_relative_to(SITE) and MADE.get(target.relative_to(SITE).parts[0])
        if not (made or target).exists():
            missing.append((page.name, link))
    assert not missing


def test_no_page_holds_both_sides_of_a_merge():
    texts = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *SITE.rglob("*.md")]
    assert len(texts) > 20
    for page in texts:
        assert not re.search(r"^(<{7}|={7}|>{7})( |$)", page.read_text(), re.M), page


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "docs" / "mkdocs.yml").read_text()
    for page in SITE.rglob("*.md"):
        assert f"{page.relative_to(SITE)}\n" in navigation, page


def test_every_figure_of_a_concept_is_made_by_the_command():
    script = (ROOT / "docs" / "figures.py").read_text()
    for picture in (SITE / "figures").iterdir():
        assert f'"{picture.name}"' in script, picture


@dataclasses.dataclass
class Undescribed:
    first: int = 1
    """Is described."""
    second: int = 2


def texts_of(kind: type) -> dict[str, str]:
    """What stands below the fields that a class itself writes, as tyro reads it; "" where nothing does."""
    own = inspect.get_annotations(kind)
    found = {p.arg_name: p.description for p in docstring_parser.parse_from_object(kind).params}
    return {f.name: found.get(f.name) or "" for f in dataclasses.fields(kind) if f.name in own}


def test_every_field_of_a_configuration_is_described_below_it():
    assert len(CONFIGURATIONS) > 10
    for kind in {base for each in CONFIGURATIONS for base in each.__mro__ if base is not object}:
        assert "**Fields" not in (kind.__doc__ or ""), kind
        for name, text in texts_of(kind).items():
            assert text[:1].isupper(), f"{kind.__name__}.{name}: {text!r}"
            assert text.endswith("."), f"{kind.__name__}.{name}: {text!r}"
    assert texts_of(Undescribed) == {"first": "Is described.", "second": ""}


def options_of(help_text: str) -> dict[str, str]:
    """What a help text says of each option, names and default included, by the option's first name."""
    found: dict[str, str] = {}
    name = None
    for line in help_text.replace("│", " ").splitlines():  # boxes are drawn where stdout is UTF-8
        words = line.strip()
        if not line.startswith("  "):
            name = None
        elif re.match("  --?[a-z]", line) and not (name and found[name].endswith(",")):
            name = re.split("[ ,]", words)[0]
            found[name] = words
        elif name and words:
            found[name] += f" {words}"
    return found


def undescribed(options: dict[str, str]) -> list[str]:
    """Options in whose text no sentence ends before the default."""
    end = re.compile(r"\.( \((default|required)[^()]*\))?$")
    return [name for name, text in options.items() if name != "-h" and not end.search(text)]


def help_of(command: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as exit:
        main([*command, "--help"])
    assert exit.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[-1])
def test_every_option_is_described_by_help(command, capsys):
    options = options_of(help_of(command, capsys))
    assert "-h" in options
    assert undescribed(options) == []


def test_an_option_that_is_not_described_is_found(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Undescribed, args=["--help"])
    assert undescribed(options_of(capsys.readouterr().out)) == ["--second"]


def test_help_shows_the_fields_own_texts_and_fills_its_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(["train", "--kind", "dit"], capsys)
    options = options_of(text)
    for prefix, kind in (("training", config.TrainingConfig), ("model", config.DiTConfig)):
        for name, said in texts_of(kind).items():
            option = f"--{prefix}.{name.replace('_', '-')}"
            assert " ".join(said.split()) in options[option], option
    lines = [re.fullmatch(r"[│ ] {7}(\S.*?) *[│ ]", line) for line in text.splitlines()]
    pairs = [(one[1], two[1]) for one, two in itertools.pairwise(lines) if one and two]
    width = max(len(line) for line, _ in pairs)
    assert len(pairs) > 50
    for line, following in pairs:
        assert len(f"{line} {following.split()[0]}") > width, line


@pytest.mark.slow
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="the site is built by `make docs`, which installs mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    done = subprocess.run(
        [*command, "-f", str(ROOT / "docs" / "mkdocs.yml")],
        capture_output=True,
        text=True,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'export'}",
            "NO_MKDOCS_2_WARNING": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    shown = (tmp_path / "reference" / "config.html").read_text()
    for kind in CONFIGURATIONS:
        for field in dataclasses.fields(kind):
            assert f'id="diffusion_eqx.config.{kind.__name__}.{field.name}"' in shown
    for page in tmp_path.rglob("*.html"):
        fetched = re.findall(r"<(?:script|img|iframe)[^>]*src=\"(?:https?:)?//", page.read_text())
        fetched += re.findall(
            r"<link[^>]*rel=\"(?:stylesheet|preconnect)\"[^>]*//", page.read_text()
        )
        assert not fetched, (page.name, fetched)
