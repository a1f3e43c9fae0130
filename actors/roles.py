"""What the actors are called in Ray's dashboard, and every option they run with, spelled out."""

from typing import Any

from actors.shell import ComponentActor

NAMESPACE = "hean"

# Ray's own restarts and retries are off: its count of restarts has no time window, and a retried call would come
# twice and out of order. The engine begins actors anew, by the one path there is.
OPTIONS: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "namespace": NAMESPACE}


class StrategyActor(ComponentActor):
    """One strategy instance."""


class RiskManagerActor(ComponentActor):
    """Signals into orders, or refusals."""


class BrokerActor(ComponentActor):
    """The life of every order; two legs as one."""


class PortfolioActor(ComponentActor):
    """What is held, and what it is worth."""


class ReconcilerActor(ComponentActor):
    """Ours against the venue's word."""


class MonitorActor(ComponentActor):
    """Everything that was said, folded into what can be seen."""


class ProcessActor(ComponentActor):
    """A process: a component with an end."""
