"""What strangers read first says what the package says: citation, support, changes, templates."""

import re
from pathlib import Path

import pytest
import yaml

import agnet
from agnet.cli import main

ROOT = Path(agnet.__file__).resolve().parent
SETUP = (ROOT / "setup.cfg").read_text(encoding="utf-8")


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def oldest(package):
    return re.search(rf"^    {package}>=([\d.]+)", SETUP, re.M)[1]


def test_the_citation_is_of_this_version_and_the_papers_entry_agrees():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["version"] == agnet.__version__ and citation["license"] == "MIT"
    (paper,) = citation["references"]
    authors = " and ".join(f"{each['family-names']}, {each['given-names']}" for each in paper["authors"])
    page = text_of("docs/citing.md")
    bibtex = dict(re.findall(r"^  (\w+)\s*= \{(.*)\},?$", page.partition("@software")[0], re.M))
    assert bibtex["author"] == authors
    assert bibtex["title"].replace("{AG-Net}", "AG-Net") == paper["title"]
    assert (bibtex["journal"], int(bibtex["volume"])) == (paper["journal"], paper["volume"])
    assert (bibtex["pages"], int(bibtex["year"])) == (f"{paper['start']}--{paper['end']}", paper["year"])
    assert f"version = {{{agnet.__version__}}}" in page


def test_the_citation_has_what_its_format_requires():
    """Version 1.2.0 of the Citation File Format, read from its schema by hand."""
    citation = yaml.safe_load(text_of("CITATION.cff"))
    known = "abstract authors cff-version commit contact date-released doi identifiers keywords license license-url"
    known += " message preferred-citation references repository repository-artifact repository-code title type url"
    known += " version"
    assert citation["cff-version"] == "1.2.0" and {"authors", "message", "title"} <= set(citation) <= {*known.split()}
    for work in (citation, *citation["references"]):
        assert {"authors", "title", "type"} <= set(work)
        assert all(set(each) in ({"name"}, {"family-names", "given-names"}) for each in work["authors"])
        # An initial N without quotes is false in YAML.
        assert all(isinstance(value, str) for each in work["authors"] for value in each.values())


def test_the_container_gets_all_that_the_wheel_is_made_of_and_ends_in_the_demo():
    kept = [line[1:] for line in text_of(".dockerignore").splitlines() if line.startswith("!")]
    packages = re.findall(r"^    agnet\.(\w+)$", SETUP, re.M)
    files = ["pyproject.toml", "setup.cfg", "py.typed", *re.findall(r"(?:file: |license_files = )(\S+)", SETUP), "*.py"]
    assert sorted(kept) == sorted({*packages, *files})
    recipe = text_of("Dockerfile")
    entry, command = (re.search(rf"^{word} (.*)$", recipe, re.M)[1] for word in ("ENTRYPOINT", "CMD"))
    assert entry == '["agnet"]' and yaml.safe_load(command)[0] in main.commands
    assert recipe.index("\nUSER agnet\n") < recipe.index("\nENTRYPOINT")  # not root


def test_the_oldest_versions_supported_are_those_required():
    page = text_of("docs/support.md")
    python = re.search(r"^python_requires = >=([\d.]+)$", SETUP, re.M)[1]
    assert f"needs {python} or newer" in page
    assert f"the oldest allowed is {oldest('torch')}, with torchvision {oldest('torchvision')}" in page
    always = SETUP[SETUP.index("install_requires") : SETUP.index("[options.package_data]")]
    bounded = re.findall(r"^    (\w+)>=[\d.]+,<\d+$", always, re.M)
    assert len(bounded) > 2
    for package in bounded:
        assert package in page.lower(), package


def test_every_state_of_support_is_explained():
    page = text_of("docs/support.md")
    states = set(re.findall(r"^\| [^|*]+ \| ([^|]+?) \|", page, re.M)) - {"state"}
    assert states == set(re.findall(r"^- \*\*([^*]+)\*\*:", page, re.M))


def test_the_changelog_has_the_usual_form():
    changes = text_of("CHANGELOG.md")
    versions = re.findall(r"^## \[(.+?)\](.*)$", changes, re.M)
    assert versions[0] == ("Unreleased", "")
    assert all(re.fullmatch(r" - \d{4}-\d\d-\d\d", date) for _, date in versions[1:])
    kinds = re.findall(r"^### (.*)$", changes, re.M)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("name", ["bug_report.md", "feature_request.md"])
def test_issue_templates_have_a_header_and_name_commands_that_exist(name):
    text = text_of(f".github/ISSUE_TEMPLATE/{name}")
    header = yaml.safe_load(text.split("---\n")[1])
    assert set(header) == {"name", "about", "labels"}
    for command, options in re.findall(r"`agnet (\w+)((?: --[a-z-]+ [\w.]+)*)`", text):
        known = {option for parameter in main.commands[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", options)) <= known
