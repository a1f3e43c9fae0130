"""The clusters that `ray up` would begin. No cloud is here: Ray's own schema judges them, and what they promise is looked up."""

import copy
import logging

import jsonschema
import pytest

from actors.foreground import Wanted
from hean.engine_settings import NOT_SETTINGS, VenueMode
from tests.cluster.files import CLUSTER, ROOT, read

FILES = ("ray.yaml", "ray-on-premise.yaml")
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def validated(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray.autoscaler._private.util").setLevel(logging.ERROR)
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.fixture(params=FILES)
def config(request):
    return read(request.param)


def test_ray_takes_it(config):
    assert validated(config)["cluster_name"] == "hean"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("below", [None, "auth"])
def test_a_word_that_ray_does_not_know_is_refused(name, below):
    config = read(name)
    (config if below is None else config[below])["worker_start_comands"] = ["x"]
    with pytest.raises(jsonschema.ValidationError, match="worker_start_comands"):
        validated(config)


def test_a_worker_that_lacks_its_resources_is_refused():
    config = read("ray.yaml")
    del config["available_node_types"]["worker"]["resources"]
    with pytest.raises(jsonschema.ValidationError, match="resources"):
        validated(config)


def test_every_ray_asks_for_its_token(config):
    starts = [line for name in ("head_start_ray_commands", "worker_start_ray_commands") for line in config[name]]
    starts = [line for line in starts if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert config["file_mounts"]["/home/admin/.ray/auth_token"] == "~/.ray/auth_token"  # noqa: S105 (where it lies)


def test_the_dashboard_is_on_loopback_and_the_head_computes_no_trial(config):
    (head,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in head
    assert "--num-cpus=0" in head


def test_workers_run_ray_and_nothing_else_of_ours(config):
    said = " ".join(line for name in COMMANDS if not name.startswith("head") for line in config[name])
    assert "hean up" not in said
    assert "hean.service" not in said
    for word in ("BYBIT", "HEAN_KEYS", "keys.toml", "LIVE_CONFIRM"):
        assert word not in said


def test_no_key_is_copied_to_any_node(config):
    assert {".hean*", "keys*.toml", "*.pem", "*.key", "*.env", "catalog", "runs"} <= set(config["rsync_exclude"])
    assert set(config["file_mounts"].values()) == {".", "~/.ray/auth_token"}


def test_what_is_installed_comes_from_the_lock(config):
    assert any("make -C /opt/hean install" in line for line in config["setup_commands"])
    recipe = (ROOT / "Makefile").read_text().partition("$(VENV)/installed:")[2].partition("\n\n")[0]
    installs = [line for line in recipe.splitlines() if "pip install" in line]
    assert sum("--require-hashes" in line for line in installs) == len(installs) - 1, "all but ourselves"


def test_the_cloud_lets_in_ssh_from_one_address_alone():
    (rule,) = read("ray.yaml")["provider"]["security_group"]["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
    assert all(one["CidrIp"].endswith("/32") for one in rule["IpRanges"])


def test_the_trading_core_is_a_service_with_a_user_of_its_own():
    unit = (CLUSTER / "hean.service").read_text()
    said = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    assert said["User"] == "hean"
    assert said["ExecStart"].endswith("hean up --foreground")
    assert said["NoNewPrivileges"] == "yes"
    assert said["ProtectSystem"] == "strict"
    assert said["ReadWritePaths"] == "/var/lib/hean"
    assert all(mode in unit for mode in (VenueMode.SANDBOX, VenueMode.TESTNET))
    assert "HEAN_HOME" in NOT_SETTINGS
    assert float(said["TimeoutStopSec"]) > Wanted.__struct_defaults__[-2], (
        "longer than a start takes, which must end first"
    )
