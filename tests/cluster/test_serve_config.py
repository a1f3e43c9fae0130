"""The API as a Serve configuration, judged by Ray's own schema."""

import importlib

import pytest

from actors.front import API_PORT
from tests.cluster.files import read

# Serve declares a field of its schema in a way that pydantic means to drop.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")


def parsed(config):
    from ray.serve.schema import ServeDeploySchema

    return ServeDeploySchema.model_validate(config)


def test_serve_takes_it_and_it_is_the_api():
    config = parsed(read("serve.yaml"))
    (app,) = config.applications
    module, _, name = app.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    assert app.route_prefix == "/"


def test_it_listens_on_loopback_on_the_head_alone():
    config = parsed(read("serve.yaml"))
    assert (config.http_options.host, config.http_options.port) == ("127.0.0.1", API_PORT)
    assert config.proxy_location == "HeadOnly"


def understood(config):
    """What Serve took of a file. What it does not know it drops without a word."""
    return parsed(config).model_dump(mode="json", exclude_unset=True)


def test_serve_understands_every_word_of_it():
    assert understood(read("serve.yaml")) == read("serve.yaml")


@pytest.mark.parametrize("place", [(), ("applications", 0), ("http_options",)])
def test_a_word_that_serve_does_not_know_would_be_seen(place):
    config = read("serve.yaml")
    at = config
    for step in place:
        at = at[step]
    at["improt_path"] = "x"
    assert understood(config) == read("serve.yaml") != config
