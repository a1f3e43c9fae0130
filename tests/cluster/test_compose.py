"""The containers. No engine for them is here: the schema of compose judges the file, and what it promises is looked up."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from actors.cli import app
from hean.engine_settings import NOT_SETTINGS, VenueMode, engine_settings
from tests.cluster.files import CLUSTER, read

BIN = Path(sys.executable).parent
COMPOSE = read("compose.yaml")
SERVICES = COMPOSE["services"]
ENVIRONMENTS = sorted((CLUSTER / "environments").glob("*.env"))


def judged(path):
    return subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_schema_of_compose_takes_it():
    outcome = judged(CLUSTER / "compose.yaml")
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize(
    ("right", "wrong"), [("healthcheck:", "healtcheck:"), ("read_only: true", "read_only: [yes]"), ("ports:", "port:")]
)
def test_a_typo_is_refused(tmp_path, right, wrong):
    text = (CLUSTER / "compose.yaml").read_text()
    assert right in text
    (tmp_path / "compose.yaml").write_text(text.replace(right, wrong, 1))
    assert judged(tmp_path / "compose.yaml").returncode == 1


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_shut_in(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert re.search(r":\d+\.\d+(\.\d+)?(-\w+)?$|:v\d+\.\d+\.\d+$", service["image"]), "an image of one version"


def test_nobody_runs_as_root():
    assert all(service.get("user", "").split(":")[0] not in {"0", "root"} for service in SERVICES.values())
    assert [name for name, service in SERVICES.items() if "user" not in service] == ["head"]
    assert "\nUSER 10001:10001\n" in (CLUSTER / "Dockerfile").read_text()


def test_what_is_published_is_published_on_this_machine_alone():
    published = {port: name for name, service in SERVICES.items() for port in service.get("ports", ())}
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert {port.split(":")[1] for port in published} == {"3000", "3001", "9091"}
    assert "8000" not in str(published)
    assert "8265" not in str(published)


def test_nothing_secret_is_written_in_it():
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY", name):
                assert value.startswith("/run/secrets/") or value == "${HEAN_KEYS:-}", name
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())


def test_the_keys_of_the_exchange_are_the_engines_alone():
    assert [name for name, service in SERVICES.items() if "keys" in service.get("secrets", ())] == ["head"]
    assert [name for name, service in SERVICES.items() if "home" in str(service.get("volumes"))] == ["head"]


def test_only_the_head_reaches_redis_and_redis_reaches_nobody():
    assert SERVICES["redis"]["networks"] == ["state"]
    assert COMPOSE["networks"]["state"] == {"internal": True}
    assert SERVICES["redis"]["profiles"] == ["production"]
    assert "state" not in SERVICES["grafana"]["networks"]


def test_the_objects_of_ray_fit_into_the_shared_memory_and_that_into_the_container():
    head = SERVICES["head"]
    assert (head["shm_size"], head["mem_limit"]) == ("1g", "${HEAD_MEMORY:-6g}")
    at = head["command"].index("--object-store-mb")
    assert head["command"][at + 1] == "${OBJECT_STORE_MB:-512}"


def test_the_command_of_the_head_is_one_that_there_is():
    from typer.main import get_command

    command = get_command(app).commands[SERVICES["head"]["command"][0]]
    words = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in SERVICES["head"]["command"][1:]]
    given = command.make_context("up", words).params
    assert given["foreground"]
    assert given["page_port"] == 3080
    assert "proxy_pass http://127.0.0.1:3080;" in (CLUSTER / "nginx.conf").read_text()


def test_what_is_mounted_is_there():
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            place = volume.split(":")[0]
            assert not place.startswith(".") or (CLUSTER / place).exists(), place
            assert place.startswith(".") or place in COMPOSE["volumes"]


# --- settings for each environment ------------------------------------------------------------------


def variables(path):
    lines = [line.strip() for line in path.read_text().splitlines()]
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_sets_what_compose_asks_for_and_no_secret(path):
    given = variables(path)
    asked = set(re.findall(r"\$\{(\w+)", json.dumps(COMPOSE))) | {"COMPOSE_PROFILES"}
    assert set(given) <= asked
    assert not given.keys() & {"DRY_RUN", "LIVE_CONFIRM", "CONFIRM_PHRASE"}, "said by a person each time"
    assert given["HEAN_VENUE"] in list(VenueMode)
    assert ("KEYS_FILE" in given) is (given["HEAN_VENUE"] not in {"sandbox", "paper"})
    assert all(
        value.startswith(("./secrets/", "/run/secrets/"))
        for name, value in given.items()
        if name.endswith(("KEYS", "_FILE"))
    )


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_the_settings_of_an_environment_load_and_open_no_gate(path):
    import tomllib

    given = {
        name: value for name, value in variables(path).items() if name.startswith("HEAN_") and name not in NOT_SETTINGS
    }
    tree = tomllib.loads((CLUSTER / "settings" / f"{given['HEAN_VENUE']}.toml").read_text())
    settings = engine_settings(tree, given)
    assert settings.venue == given["HEAN_VENUE"]
    assert settings.dry_run
    assert (settings.live_confirm, settings.confirm_phrase) == ("", "")


def test_every_mode_has_settings_and_each_is_one():
    found = {
        path.stem: engine_settings(__import__("tomllib").loads(path.read_text()), {})
        for path in (CLUSTER / "settings").glob("*.toml")
    }
    assert {settings.venue for settings in found.values()} == set(VenueMode) == set(found)


def test_the_production_profile_has_a_redis_with_a_password():
    given = variables(CLUSTER / "environments" / "production.env")
    assert given["COMPOSE_PROFILES"] == "production"
    assert given["RAY_REDIS_ADDRESS"].split(":")[0] in SERVICES
    assert given["REDIS_PASSWORD_FILE"].startswith("./secrets/")
    assert "--requirepass" in " ".join(SERVICES["redis"]["command"])


def test_the_whole_is_one_document():
    assert len(list(yaml.safe_load_all((CLUSTER / "compose.yaml").read_text()))) == 1
