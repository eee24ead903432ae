"""What the images and the compose file say agrees with the repository. No container engine is needed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from embeddb.cli.main import build

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
SCRIPTS = sorted([*DOCKER.glob("*.sh"), *DOCKER.glob("initdb/*.sh")])
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

each_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
each_service = pytest.mark.parametrize("service", SERVICES)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Name and arguments of each instruction, its lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text("utf-8"), flags=re.MULTILINE)
    parts = (line.partition(" ") for line in text.replace("\\\n", " ").splitlines() if line.strip())
    return [(name, rest.strip()) for name, _, rest in parts]


def build_arguments(dockerfile: Path) -> dict[str, str]:
    """With their defaults."""
    found = (rest.partition("=") for name, rest in instructions(dockerfile) if name == "ARG")
    return {name: default for name, equals, default in found if equals}


def copied(dockerfile: Path) -> list[str]:
    """What is copied out of the repository."""
    rows = [shlex.split(rest) for name, rest in instructions(dockerfile) if name == "COPY" and "--from=" not in rest]
    return [word for row in rows for word in row[:-1] if not word.startswith("--")]


def is_checked(service: str) -> bool:
    """Whether the service's image brings its health check."""
    return any(
        name == "HEALTHCHECK" for name, _ in instructions(DOCKER / Path(SERVICES[service]["build"]["dockerfile"]).name)
    )


def embeddb_commands() -> list[list[str]]:
    """Every embeddb command line of the images, the scripts, the compose file and the guide."""
    lines = [line for path in SCRIPTS for line in path.read_text("utf-8").splitlines()]
    lines += re.findall(r"^\$ (embeddb .*)", (ROOT / "docs" / "docker.md").read_text("utf-8"), re.MULTILINE)
    found = [service["command"] for service in SERVICES.values() if "command" in service]
    for dockerfile in DOCKERFILES:
        for name, rest in instructions(dockerfile):
            if name == "RUN":
                lines += rest.split("&&")
            elif name == "CMD":
                found.append([str(word) for word in yaml.safe_load(rest)])
    found += [shlex.split(line) for line in lines if line.strip().startswith("embeddb ")]
    return [command[1:] for command in found if command[0] == "embeddb"]


def test_every_command_is_one_of_embeddbs() -> None:
    commands = embeddb_commands()
    assert len(commands) >= 5
    for words in commands:
        found: Any = typer.main.get_command(build())
        context = found.make_context("embeddb", [], resilient_parsing=True)
        rest = list(words)
        while hasattr(found, "commands"):
            found = found.get_command(context, rest.pop(0))
            assert found is not None, words
        options = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        named = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert named <= options, words


@each_dockerfile
def test_what_is_copied_is_there_and_not_ignored(dockerfile: Path) -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    sources = copied(dockerfile)
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source.rstrip("/") == name or source.startswith(f"{name}/") for name in kept), source


def test_nothing_is_kept_for_the_images_that_none_takes() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert kept == {source.rstrip("/") for dockerfile in DOCKERFILES for source in copied(dockerfile)}


@each_dockerfile
def test_an_image_is_pinned_small_and_not_roots(dockerfile: Path) -> None:
    """What hadolint would say, for machines without it."""
    found = instructions(dockerfile)
    for base in (rest for name, rest in found if name == "FROM"):
        assert re.search(r":\S*(\d+\.\d+\.\d+|\$\{PYTHON\}|\$\{PGVECTOR\})", base), base
    for name, rest in found:
        assert name in {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "HEALTHCHECK", "RUN", "USER", "WORKDIR"}
        assert "sudo" not in rest
        assert "apt-get" not in rest
        if "pip install" in rest:
            assert "--no-cache-dir" in rest
            assert "--constraint constraints.txt" in rest
        if name in {"CMD", "ENTRYPOINT"}:
            assert rest.startswith("["), "a shell would not hand signals on"
    last_stage = max(place for place, (name, _) in enumerate(found) if name == "FROM")
    [user] = [rest for name, rest in found[last_stage:] if name == "USER"]
    assert int(user) > 0
    assert not any(name in {"RUN", "COPY"} for name, _ in found[[name for name, _ in found].index("USER") :])


@each_dockerfile
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    if (program := shutil.which("hadolint")) is None:
        pytest.skip("hadolint is not installed")
    ran = subprocess.run([program, "--no-color", str(dockerfile)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_versions_are_those_of_the_project() -> None:
    for dockerfile in DOCKERFILES:
        wanted = build_arguments(dockerfile)
        minor = wanted["PYTHON"].rpartition(".")[0]
        assert f"Programming Language :: Python :: {minor}" in PROJECT["classifiers"]
        for extra in wanted.get("EXTRAS", "cli").split(","):
            assert extra in PROJECT["optional-dependencies"]
    assert "\npsycopg-binary==" in (ROOT / "constraints.txt").read_text("utf-8")
    arguments = build_arguments(DOCKER / "postgres.Dockerfile")
    assert arguments["POSTGRES"] in {"15", "16", "17", "18"}
    assert tuple(int(part) for part in arguments["PGVECTOR"].split(".")) >= (0, 8)
    for dockerfile in DOCKERFILES:
        assert f":{PROJECT['version']}" in dockerfile.read_text("utf-8")
    for service in SERVICES.values():
        assert service["image"].partition(":")[2].partition("-")[0] == PROJECT["version"]
        for name, value in service["build"].get("args", {}).items():
            default = re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value)
            assert name in build_arguments(DOCKER / Path(service["build"]["dockerfile"]).name)
            assert default in {"", arguments["POSTGRES"], *PROJECT["optional-dependencies"]}


@each_service
def test_a_service_is_hardened_and_checked(service: str) -> None:
    described = SERVICES[service]
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in described
    assert "user" not in described, "the image names it"
    assert (DOCKER / described["build"]["context"] / described["build"]["dockerfile"]).is_file()
    assert "healthcheck" in described or is_checked(service)
    assert all(port.startswith("127.0.0.1:") for port in described.get("ports", ()))
    for name, condition in described.get("depends_on", {}).items():
        assert condition == {"condition": "service_healthy"}
        assert is_checked(name)
    for volume in described.get("volumes", ()):
        assert volume.partition(":")[0] in COMPOSE["volumes"]


@each_service
def test_passwords_come_from_files_alone(service: str) -> None:
    described = SERVICES[service]
    files = {value for name, value in described["environment"].items() if name.endswith("PASSWORD_FILE")}
    assert files == {f"/run/secrets/{secret}" for secret in described["secrets"]}
    assert set(described["secrets"]) <= set(COMPOSE["secrets"])
    for name, value in described["environment"].items():
        assert "PASSWORD" not in name or name.endswith("_FILE")
        assert not re.search(r"://[^/@]*:", value)


def test_workers_are_started_again_and_given_time_to_stop() -> None:
    worker = SERVICES["worker"]
    assert worker["restart"] == "unless-stopped"
    grace = int(worker["command"][worker["command"].index("--grace") + 1])
    assert int(worker["stop_grace_period"].removesuffix("s")) > grace
    port = worker["command"][worker["command"].index("--metrics-port") + 1]
    assert f":{port}/" in " ".join(worker["healthcheck"]["test"])


def test_secrets_are_made_once_and_never_committed(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    command = ["sh", str(DOCKER / "make-secrets.sh"), str(folder)]
    subprocess.run(command, check=True)
    first = {path.name: path.read_text("utf-8") for path in folder.iterdir()}
    subprocess.run(command, check=True)
    assert {path.name: path.read_text("utf-8") for path in folder.iterdir()} == first
    assert {f"secrets/{name}" for name in first} == {secret["file"] for secret in COMPOSE["secrets"].values()}
    assert len(set(first.values())) == len(first)
    assert all(re.fullmatch("[0-9a-f]{48}", password) for password in first.values())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (DOCKER / "secrets" / ".gitignore").read_text("utf-8").split() == ["*", "!.gitignore"]
    assert not any("secrets" in source for dockerfile in DOCKERFILES for source in copied(dockerfile))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script: Path) -> None:
    subprocess.run(["sh", "-n", str(script)], check=True)
    assert script.read_text("utf-8").startswith("#!/bin/sh\n")
    if os.name == "posix" and (program := shutil.which("shellcheck")) is not None:
        subprocess.run([program, str(script)], check=True)
