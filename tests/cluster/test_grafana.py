"""Grafana: the boards are what the code says, and ask for nothing that nobody says."""

import importlib.util
import json
import re
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import ray

from tests.cluster.files import CLUSTER, read
from tests.cluster.scrape import named, names, serving

FOLDER = CLUSTER / "grafana"
FILES = sorted((FOLDER / "dashboards").glob("*.json"))
BOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}
PANELS = [(name, panel) for name, board in BOARDS.items() for panel in board["panels"]]
each_board = pytest.mark.parametrize("name", BOARDS)
each_panel = pytest.mark.parametrize(
    ("name", "panel"), PANELS, ids=[f"{name}: {panel['title']}" for name, panel in PANELS]
)


@pytest.fixture(scope="module")
def code():
    spec = importlib.util.spec_from_file_location("boards", FOLDER / "boards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expressions(panel):
    """What a panel asks, with Grafana's own variables filled in."""
    return [target["expr"].replace("$__rate_interval", "1m") for target in panel["targets"]]


def test_there_are_the_boards_of_the_code_and_no_others(code):
    assert set(BOARDS) == set(code.boards()) == {"trading", "health", "ray"}


@each_board
def test_written_again_a_board_is_the_same(name, code):
    said = code.written(code.boards()[name])
    assert said == (FOLDER / "dashboards" / f"{name}.json").read_text(), "run `python cluster/grafana/boards.py`"


@each_board
def test_panels_have_ids_of_their_own_and_do_not_cover_one_another(name):
    panels = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert {x for x, _ in taken} == set(range(24)), "each row is as wide as the board"


def test_boards_have_ids_of_their_own():
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)


@each_panel
def test_a_panel_asks_the_source_that_is_provisioned(name, panel):
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    asked = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert {(one["type"], one["uid"]) for one in asked} == {(source["type"], source["uid"])}


@each_panel
def test_a_panel_asks_for_what_is_said(name, panel):
    assert panel["targets"]
    asked = set().union(*map(named, expressions(panel)))
    assert asked
    assert {one for one in asked if not one.startswith("ray_")} <= names() | {"up", "ALERTS"}


@pytest.fixture(scope="module")
def told_by_ray():
    """The names in the dashboards that Ray brings along."""
    folder = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    return set(re.findall(r"ray_\w+", "".join(path.read_text() for path in folder.glob("*.py"))))


def test_what_is_asked_of_ray_its_own_dashboards_ask_too(told_by_ray):
    asked = set().union(*(named(one) for _, panel in PANELS for one in expressions(panel)))
    of_ray = {one for one in asked if one.startswith("ray_")}
    assert of_ray
    assert of_ray <= told_by_ray


@each_panel
def test_what_is_unknown_is_not_drawn_as_nought(name, panel):
    assert panel["fieldConfig"]["defaults"].get("noValue", "unknown") == "unknown"
    for one in expressions(panel):
        assert "or vector(0)" not in one.replace('count(ALERTS{alertstate="firing"}) or vector(0)', "")


def test_the_boards_lie_where_grafana_looks_for_them():
    (provider,) = read("grafana/provisioning/dashboards/hean.yaml")["providers"]
    mounts = read("compose.yaml")["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in mounts


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not here: Debian's package has it")
def test_prometheus_itself_answers_what_the_boards_ask(tmp_path):
    """That an expression can be parsed does not say that its two sides find one another."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copy(CLUSTER / "prometheus" / "alerts.yml", tmp_path)
    config = (CLUSTER / "prometheus" / "prometheus.yml").read_text()
    with serving() as api:
        config = config.replace("127.0.0.1:8000", f"127.0.0.1:{api}").replace("interval: 5s", "interval: 1s")
        config = config.replace("timeout: 4s", "timeout: 1s")
        (tmp_path / "prometheus.yml").write_text(config)
        options = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={tmp_path}/data"]
        with subprocess.Popen(
            ["prometheus", f"--config.file={tmp_path}/prometheus.yml", *options, "--log.level=error"]
        ) as prometheus:
            try:
                asked = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=5)
                answers = _until_scraped(asked)
                for name, panel in PANELS:
                    for one in expressions(panel):
                        answer = asked.get("/query", params={"query": one}).json()
                        assert answer["status"] == "success", f"{name}: {panel['title']}: {answer}"
                        answers[one] = answer["data"]["result"]
                asked.close()
            finally:
                prometheus.terminate()
    assert answers['up{job="hean"}'][0]["value"][1] == "1"
    for one in (
        'hean_equity{strategy=""}',
        "hean_limit_used / hean_limit",
        "hean_actor_up",
        "sum by (part) (hean_profit)",
    ):
        assert answers[one], one


def _until_scraped(asked):
    for _ in range(200):
        with suppress(httpx.TransportError):
            found = asked.get("/query", params={"query": "count_over_time(hean_engine_up[1m]) > 2"}).json()
            if found.get("data", {}).get("result"):
                return {}
        time.sleep(0.1)
    raise TimeoutError("Prometheus does not scrape")
