"""A component cut off anywhere and taken up again from the bytes of its state goes on as if nothing had been."""

import random

import pytest

from hean.codec import decoded, encoded
from hean.execution.simulated_venue import Tier
from hean.messages import Wake
from tests.graph.house import house, market, system
from tests.graph.test_simulation import NERVOUS, together

NODES = ("venue", "portfolio", "reconciler", "monitor")


def told(component, journal):
    """After each thing a component is told: what it says, as bytes, and when it wants to be woken."""
    heard = []
    for one in journal:
        message = Wake() if one.envelope is None else one.envelope.message
        heard.append((encoded(list(component.handle(message, one.now))), component.wake_at()))
    return heard


@pytest.mark.parametrize("tier", Tier)
def test_what_is_cut_goes_on_as_if_it_had_lived_on(tier):
    for seed in range(6):
        tape, risk = market(seed, tier), NERVOUS if seed % 3 == 2 else None
        found = house(tape, tier, together(seed), seed=seed, haste=0.1, risk=risk)
        found.sim.run()
        found.quiet()
        _, build = system(tape, tier, together(seed), risk=risk)
        chance = random.Random(seed)
        for name in NODES:
            journal = found.sim.journals[name]
            whole, one = build()[name], build()[name]
            said = told(whole, journal)
            at = 0
            for cut in sorted(chance.choices(range(1, len(journal)), k=4)):
                assert told(one, journal[at:cut]) == said[at:cut], name
                kept, one = one.state, build()[name]
                one.state = decoded(type(kept), encoded(kept))
                assert encoded(one.state) == encoded(kept), name
                assert one.wake_at() == said[cut - 1][1], name
                at = cut
            assert told(one, journal[at:]) == said[at:], name
            assert encoded(one.state) == encoded(whole.state), name
