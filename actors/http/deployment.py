"""The API on Ray Serve: one replica that computes nothing and takes no processor, reached through one proxy on loopback.

It holds no state: who kills it, the proxy or Serve's controller takes nothing from the engine, and Ray begins them anew.
"""

import logging
import socket
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field
from ray import serve
from ray.serve._private import replica
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, LoggingConfig

from actors.http.app import build_app
from actors.http.home import token_for
from actors.http.ray_engine import RayEngine
from hean.errors import HeanError

API = "hean"
PORT = 8000
LOOPBACK = "127.0.0.1"
_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


class ApiConfig(BaseModel, frozen=True, extra="forbid"):
    """What the API is told where it is deployed: plain values, as a Serve configuration has them under `args`."""

    home: str = Field(description="HEAN's home directory, on the machine of the head")
    hosts: tuple[str, ...] = Field(default=(), description="names this machine is reached by, beside its own")


@serve.deployment(
    num_replicas=1,
    max_ongoing_requests=100,
    # Home, token and logs are the head's; the workers of a cluster compute.
    ray_actor_options={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
    health_check_period_s=2,
    health_check_timeout_s=10,
    graceful_shutdown_wait_loop_s=0.1,
    graceful_shutdown_timeout_s=2,
    logging_config=_QUIET,
)
@serve.ingress()
class Api:
    """A replica. Its application is built where it runs: nothing but plain values travels."""

    def __init__(self, config: ApiConfig) -> None:
        self._config = config
        _keep_to_loopback()

    def __serve_build_asgi_app__(self) -> FastAPI:
        home = Path(self._config.home)
        # The proxy puts the request's id into the answer by itself.
        return build_app(RayEngine(), home=home, token=token_for(home), hosts=self._config.hosts, echoes=False)


def application(args: ApiConfig) -> serve.Application:
    """The application, for `import_path: actors.http.deployment:application` in a Serve configuration."""
    return Api.bind(args)  # type: ignore[no-any-return,attr-defined]  # the decorators hide what it is


def deploy(home: Path, *, port: int = PORT, hosts: tuple[str, ...] = ()) -> str:
    """Begin the API on the Ray that this process has joined, or leave it as it is; its address.

    Args:
        home: HEAN's home directory.
        port: Where it listens, on loopback alone.
        hosts: Names this machine is reached by, beside its own.

    Raises:
        HeanError: Another program has the port; or Serve does not come to life.
    """
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    known = listening()
    if known is None:
        _must_be_free(port)
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": LOOPBACK, "port": port},
            logging_config=_QUIET,
            controller_options={"runtime_env": {"env_vars": {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1"}}},
        )
    elif known != port:
        raise HeanError(f"the API listens on port {known} already: take that, or `hean down` first")
    if not is_deployed():
        try:
            serve.run(application(ApiConfig(home=str(home.absolute()), hosts=hosts)), name=API, route_prefix="/")
        except RuntimeError as failure:
            raise HeanError(f"the API does not come to life: {failure}") from failure
    return f"http://{LOOPBACK}:{port}"


def undeploy() -> None:
    """End the API, and Serve with it. The engine does not notice."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.shutdown()  # type: ignore[no-untyped-call]


def is_deployed() -> bool:
    """Whether the API runs."""
    found = serve.status().applications.get(API)
    return found is not None and found.status == ApplicationStatus.RUNNING


def listening() -> int | None:
    """The port Serve listens on; None where it does not run."""
    from ray.serve.context import _get_global_client

    try:
        client: Any = _get_global_client()
    except RayServeException:
        return None
    return None if client is None else int(client.http_config.port)


def _keep_to_loopback() -> None:
    """Have this replica heard on loopback alone.

    Serve 2.60 opens a gRPC port in each replica, for calls from other deployments: on every interface, without a question
    as to who calls, and with pickles in it (`Replica._on_initialized`). There is no setting for that.
    """
    serving: Any = replica
    add = serving.add_port_to_grpc_server
    serving.add_port_to_grpc_server = lambda server, address: add(server, address.replace("[::]", LOOPBACK))


def _must_be_free(port: int) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((LOOPBACK, port))
        except OSError:
            raise HeanError(f"port {port} is taken by another program: name another with --api-port") from None
