"""Grafana: the boards are what the code says, and ask for nothing that nobody says."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import ray

from tests.cluster.files import CLUSTER, read
from tests.cluster.scrape import named, names

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
