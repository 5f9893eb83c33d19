"""The documentation names what there is."""

import re
from pathlib import Path

from diffusion_eqx.samplers import FAMILIES, GRIDS, SAMPLERS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "samplers.md").read_text()


def test_every_sampler_has_its_line():
    for name, entry in {**SAMPLERS, **{f"{n}:SOLVER": e for n, e in FAMILIES.items()}}.items():
        line = next(row for row in PAGE.splitlines() if row.startswith(f"| `{name}` |"))
        for part in (entry.about, entry.use, entry.reference, *entry.parameters):
            assert part in line, (name, part)


def test_every_grid_is_named():
    for name in GRIDS:
        assert f"`{name}`" in PAGE, name


def test_every_capability_names_tests_and_examples_that_exist():
    page = (ROOT / "docs" / "capabilities.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| [ACD]\d+ \|", line)]
    assert [row.split("|")[1].strip() for row in rows] == [
        *(f"A{i}" for i in range(1, 11)),
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
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("*/*.md")]
    links = [
        (page, link) for page in pages for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    ]
    local = [(page, link.partition("#")[0]) for page, link in links if "://" not in link]
    assert len(local) > 20
    missing = [(page.name, link) for page, link in local if not (page.parent / link).exists()]
    assert not missing
