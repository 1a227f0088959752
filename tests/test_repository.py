"""What the repository promises about itself: one list of pins, commands that exist, an entry for continuous testing."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pretrain

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def pins(name: str) -> dict[str, str]:
    lines = [line.split(";")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith(("#", "-r")))


def test_every_requirement_is_pinned_exactly() -> None:
    for name in (
        "requirements.txt",
        "requirements-test.txt",
        "requirements-bench.txt",
        "requirements-more.txt",
        "requirements-export.txt",
        "requirements-transformers4.txt",
    ):
        assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in pins(name).values())


def test_torch_and_triton_are_the_pair_that_belongs_together() -> None:
    assert pins("requirements.txt")["torch"] == "2.13.0" and pins("requirements.txt")["triton"] == "3.7.1"


def test_one_package_has_one_version() -> None:
    assert pins("requirements-more.txt").items() <= pins("requirements-test.txt").items()


def test_the_other_environment_differs_in_transformers_alone() -> None:
    ours = {**pins("requirements.txt"), **pins("requirements-test.txt")}
    other = pins("requirements-transformers4.txt")
    assert {name for name in other if other[name] != ours.get(name)} == {
        "transformers",
        "tokenizers",
        "protobuf",
        "minicons",
    }
    assert set(pins("requirements.txt")) - set(other) == {"datasets"}


def test_environment_yml_takes_its_pins_from_the_one_list() -> None:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [from_pip] = [d["pip"] for d in dependencies if isinstance(d, dict)]
    from_conda = [d for d in dependencies if isinstance(d, str)]
    assert from_pip == ["-r requirements.txt"]
    # conda brings the interpreter alone, so no package can have two versions.
    assert [re.split("[=<>]", d)[0] for d in from_conda] == ["python", "pip"]
    required = re.search(r'requires-python = ">=(3\.\d+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert f"python={required}" in from_conda


def test_installed_is_what_is_pinned() -> None:
    from importlib.metadata import version

    for name, pinned in {**pins("requirements.txt"), **pins("requirements-test.txt")}.items():
        assert version(name).split("+")[0] == pinned


def targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_bare_make_prints_every_target_with_a_line() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in targets():
        assert re.search(rf"^  make {target} +\w+", shown, re.MULTILINE), target


def test_continuous_testing_runs_the_readme_s_test_command() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make")]
    assert commands == ["make test"] and "\nmake test" in README.read_text()


PAGES = ("README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text().replace("\\\n", " "), re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize(("page", "command"), [(page, command) for page in PAGES for command in commands(page)])
def test_commands_of_the_pages_exist(page: str, command: str) -> None:
    words = [word for word in shlex.split(command) if not re.match("[A-Z]+=", word)]
    if not words:  # assignments alone
        return
    if words[0] == "make":
        assert words[1] in targets()
        variables = set(re.findall(r"\$\(call options?,([A-Z_]+),", (ROOT / "Makefile").read_text())) | {
            "ARGS",
            "LANG",
            "CHECKPOINT",
        }
        given = [word.split("=")[0] for word in words[2:]]
        assert all(re.fullmatch("[A-Z_]+", name) for name in given) and set(given) <= variables
    elif words[0] in ("python", "torchrun"):
        rest = [word for word in words[1:] if not word.startswith("-") or word == "-m"]
        script = rest[1].replace(".", "/") + ".py" if rest[0] == "-m" else rest[0]
        assert (ROOT / script).exists() or (ROOT / script.removesuffix(".py") / "__main__.py").exists()
    else:  # of other repositories
        assert words[0] in ("git", "cd", "conda") or page == "docs/babylm.md", (
            f"{command!r} is no command of this repository"
        )


OPTION = re.compile(r"(?<![\w-])--([a-z][a-z.-]+)")


def test_options_that_pages_give_to_pretraining_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Of make pretrain, pretrain.py and torchrun pretrain.py: each is one of the command or of the plan."""
    for more in ([], ["--plan"]):
        monkeypatch.setattr(sys, "argv", ["pretrain.py", *more, "--help"])
        with pytest.raises(SystemExit) as end:
            pretrain.main()
        assert end.value.code == 0
    known = set(OPTION.findall(capsys.readouterr().out))
    for page in PAGES:
        told = [c for c in commands(page) if "pretrain" in c]
        assert {option for c in told for option in OPTION.findall(c.partition("pretrain")[2])} <= known, page


def test_pictures_and_pages_of_the_readme_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text()):
        assert (ROOT / target).exists(), target


def test_nothing_names_the_machine_it_was_written_on() -> None:
    listed = subprocess.run(["git", "grep", "-lE", r"/(work|root|home)/|\.\./shared"], cwd=ROOT, capture_output=True)
    found = set(listed.stdout.decode().split()) - {"tests/test_repository.py"}
    assert not found


def test_pip_install_is_refused_with_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "is run from its folder, not installed" in done.stdout + done.stderr


def test_folders_import_in_one_direction() -> None:
    """corpora -> model -> training -> report's pages; kernels know no models, models no training, reports only records."""
    allowed = {
        "kernels": {"kernels"},
        "data": {"data"},
        "model": {"model", "data", "kernels"},
        "report": {"report", "data"},
        "training": {"training", "report", "model", "data", "kernels"},
        "eval": {"eval", "training", "report", "model", "data", "kernels"},
        "export": {"export", "eval", "training", "model", "data"},
    }
    for folder, targets_ in allowed.items():
        for path in (ROOT / folder).rglob("*.py"):
            found = set(
                re.findall(
                    r"^\s*(?:from|import) (data|eval|export|kernels|model|report|training)\b", path.read_text(), re.M
                )
            )
            assert found <= targets_, f"{path.relative_to(ROOT)} imports {sorted(found - targets_)}"
    for path in (ROOT / "report").rglob("*.py"):
        assert set(re.findall(r"from data\.(\w+)", path.read_text())) <= {"files", "text", "statistics"}, path
    for path in (ROOT / "training").rglob("*.py"):
        assert set(re.findall(r"from report\.(\w+)", path.read_text())) <= {"statistics"}, path


def test_files_stay_short() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in listed if not name.startswith("tests/")}
    assert not {name: lines for name, lines in lengths.items() if lines > 320}


def test_links_between_pages_lead_somewhere() -> None:
    """Files and headings, as GitHub makes anchors of them."""

    def prose(path: Path) -> str:
        return re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)

    def anchors(path: Path) -> set[str]:
        headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
        plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
        return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}

    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    broken = []
    for page in map(ROOT.joinpath, listed):
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            if ":" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert listed and not broken
