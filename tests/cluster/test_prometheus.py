"""Prometheus: its files hold, every alert fires when it should, and none asks for what nobody says."""

import re
import shutil
import subprocess

import pytest
import yaml

from tests.cluster.files import CLUSTER, read
from tests.cluster.scrape import HISTOGRAM, OURS, named, names

FOLDER = CLUSTER / "prometheus"
RULES = [rule for group in read("prometheus/alerts.yml")["groups"] for rule in group["rules"]]
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here: Debian's package `prometheus` has it"
)


def run(*arguments):
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_the_configuration_and_the_rules_are_such():
    run("check", "config", "prometheus.yml")
    run("check", "rules", "alerts.yml")


@promtool
def test_every_alert_fires_when_it_should_and_not_before():
    run("test", "rules", "alerts_test.yml")


def test_it_watches_this_machine_alone():
    targets = [
        target
        for job in read("prometheus/prometheus.yml")["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    assert sorted(targets) == ["127.0.0.1:8000", "127.0.0.1:8090", "127.0.0.1:9091"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(rule):
    assert rule["labels"]["severity"] in {"warning", "critical"}
    for said in (rule["annotations"]["summary"], rule["annotations"]["runbook"]):
        assert said.endswith(".")
        assert len(said.split()) > 2


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_said(rule):
    assert named(rule["expr"]) <= names() | {"up"}


def test_each_alert_is_tried():
    tried = (FOLDER / "alerts_test.yml").read_text()
    fires = set(re.findall(r'alertname="(\w+)"', tried))
    assert fires == {rule["alert"] for rule in RULES}
    tests = yaml.safe_load(tried)["tests"]
    silent = {test["name"] for test in tests if any(not one["exp_samples"] for one in test["promql_expr_test"])}
    assert {rule["alert"] for rule in RULES} <= silent | {"ApiDown"}


def test_a_command_that_a_runbook_names_is_one():
    from typer.main import get_command

    from actors.cli import app

    commands = set(get_command(app).commands)
    asked = {word for rule in RULES for word in re.findall(r"`hean ([\w-]+)", rule["annotations"]["runbook"])}
    assert asked <= commands


def test_what_is_scraped_is_enough_to_say_so():
    assert names() >= OURS
    assert names() >= HISTOGRAM
