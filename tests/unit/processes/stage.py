"""A process of any steps, and a shell without Ray that may die at any moment."""

import msgspec

from hean.messages import ProcessFinished, ProcessRequested, ProcessStarted, Wake
from hean.processes.definition import ProcessDefinition, Step, Taken, chosen
from hean.processes.factory import ProcessFactory, StartStep, StepEnded, StopStep
from hean.processes.runs import Run
from hean.units import SECOND


def step(name, **more):
    return Step(**({"name": name, "work": name, "timeout_s": 10.0, "pause_s": 1.0} | more))


def definition(*steps, name="p", version=1, alone=True):
    return ProcessDefinition(
        name=name,
        version=version,
        about="",
        complete=lambda given, _now: chosen(name, given, [Taken("word", "usual", "")]),
        plan=lambda _arguments: list(steps),
        alone=alone,
    )


class Told:
    """A factory, told one thing at a time; what it says is kept by kind."""

    def __init__(self, *definitions):
        self.definitions = definitions
        self.factory = ProcessFactory(definitions)
        self.now = 1_000 * SECOND
        self.said = []

    def tell(self, message, later_s=0.0):
        self.now += int(later_s * SECOND)
        self.said = list(self.factory.handle(message, self.now))
        return self

    def ask(self, run_id="r", process="p", **arguments):
        return self.tell(ProcessRequested(process, run_id, arguments))

    def ended(self, name, attempt=1, run_id="r", **what):
        return self.tell(StepEnded(run_id, name, attempt, **what))

    def wake(self, later_s):
        return self.tell(Wake(), later_s)

    def reborn(self, *definitions, later_s=1.0):
        """A successor that has read what was kept."""
        kept = msgspec.json.decode(msgspec.json.encode(list(self.factory.state.runs.values())), type=list[Run])
        self.definitions = definitions or self.definitions
        self.factory = ProcessFactory(self.definitions)
        self.now += int(later_s * SECOND)
        self.said = list(self.factory.resume(kept, self.now))
        return self

    @property
    def starts(self):
        return [(one.step.name, one.attempt) for one in self.said if isinstance(one, StartStep)]

    @property
    def stops(self):
        return [(one.step, one.attempt) for one in self.said if isinstance(one, StopStep)]

    @property
    def facts(self):
        return [
            one.process if isinstance(one, ProcessStarted) else one.outcome
            for one in self.said
            if isinstance(one, ProcessStarted | ProcessFinished)
        ]

    def run(self, run_id="r"):
        return self.factory.state.runs[run_id]

    def status(self, run_id="r"):
        return self.run(run_id).status
